//! OpenAPI schema of labels, which the macros cannot express.

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};

use crate::submission::validation::{MAX_LABEL_BYTES, MAX_LABELS};

/// Regular expression of the texts that [`crate::types::name::Name`] accepts.
pub(crate) const NAME: &str = "^[A-Za-z0-9._-]{1,64}$";

/// Returns the schema of labels. The maximum length in the schema counts characters, because a schema cannot
/// express the real limit, which is in bytes.
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
