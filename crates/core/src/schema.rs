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
        .description(Some("Notes of the submitter's own: up to 20 names, each with up to 256 bytes of text."))
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
        .description(Some("These waits in seconds, up to 49 of them, and one attempt more than there are waits."))
        .items(wait)
        .max_items(Some(MAX_ATTEMPTS as usize - 1))
        .build()
}
