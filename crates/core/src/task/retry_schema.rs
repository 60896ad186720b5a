//! OpenAPI schema of retry delays, which the macros cannot express.

use utoipa::openapi::schema::{Array, ArrayBuilder, ObjectBuilder, SchemaType, Type};

use crate::task::retry::MAX_ATTEMPTS;

/// Returns the schema of a list of retry delays.
pub(crate) fn delays() -> Array {
    let wait = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(31_622_400));
    ArrayBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Array, Type::Null]))
        .description(Some(
            "Delays before the retries, in seconds. At most 49 delays. The task has one attempt more than delays.",
        ))
        .items(wait)
        .max_items(Some(MAX_ATTEMPTS as usize - 1))
        .build()
}
