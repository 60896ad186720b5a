//! OpenAPI schemas that the macros cannot express.

use utoipa::openapi::schema::{AdditionalProperties, Array, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};

use crate::submit::{MAX_ATTEMPTS, MAX_LABEL_BYTES, MAX_LABELS};

/// Pattern that [`crate::name::Name`] accepts.
pub(crate) const NAME: &str = "^[A-Za-z0-9._-]{1,64}$";

/// Returns the schema of labels. The limit of their texts is in bytes, which a schema cannot express: it counts characters.
pub(crate) fn labels() -> Schema {
    let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some(NAME)).build();
    let text = ObjectBuilder::new().schema_type(Type::String).max_length(Some(MAX_LABEL_BYTES)).build();
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some("Labels for the client's own use: at most 20, each with a text of at most 256 bytes without control characters."))
        .max_properties(Some(MAX_LABELS))
        .property_names(Some(name))
        .additional_properties(Some(AdditionalProperties::RefOr(text.into())))
        .into()
}

/// Returns the schema of a list of retry delays.
pub(crate) fn delays() -> Array {
    let wait = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(31_622_400));
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .description(Some("Delays before the retries, in seconds, at most 49. The task has one attempt more than delays."))
        .items(wait)
        .max_items(Some(MAX_ATTEMPTS as usize - 1))
        .build()
}
