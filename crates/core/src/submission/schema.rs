//! OpenAPI schemas that the macros cannot express.

use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type,
};

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

/// Returns the schema of a JSON pointer or a header ([`crate::sources::request::Place`]).
fn place(pointer: &str) -> OneOfBuilder {
    let header =
        ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$"));
    let header = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("header", header)
        .required("header")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let pointer = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pointer)).max_length(Some(255));
    OneOfBuilder::new().item(pointer).item(header)
}

const POINTER: &str = "^/";

fn null() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Null)
}

/// Returns the schema of the places of an event id.
pub(crate) fn places() -> Schema {
    let several = ArrayBuilder::new().items(place(POINTER)).min_items(Some(1)).max_items(Some(5));
    let description = "Place of the id of the provider's event: a JSON pointer (RFC 6901) into the body, or a header, or several of them, whose values identify the event together. Requests with the same id become one task or event. Default: the places of the preset, else the SHA-256 of the body.";
    place(POINTER).item(several).item(null()).description(Some(description)).into()
}

/// Returns the schema of the type of an event of a source.
pub(crate) fn event_type() -> Schema {
    let description = "Type of the event: a JSON pointer (RFC 6901) into the body such as `/type`, a header, or any other text for the same type in all events. Default: the place of the preset. A request without a value there becomes an event of the type `unknown`.";
    place("^[^/]|^/").item(null()).description(Some(description)).into()
}

/// Returns the schema of the subject of an event of a source.
pub(crate) fn subject() -> Schema {
    let description = "Place of the subject of the event: a JSON pointer (RFC 6901) into the body, or a header. Default: the event has no subject.";
    place(POINTER).item(null()).description(Some(description)).into()
}
