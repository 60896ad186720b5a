//! Errors of single fields of a request.

/// Error in one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Field, as a JSON pointer (RFC 6901) into the submission.
    pub pointer: String,
    /// Description of the error and of a valid value.
    pub detail: String,
    /// Code that is more specific than "invalid", if there is one.
    pub code: Option<&'static str>,
}

impl FieldError {
    /// Creates an error for a field.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into(), code: None }
    }

    /// Prefixes the pointer with `parent`, the pointer of the value that contains the field.
    #[must_use]
    pub fn under(self, parent: &str) -> Self {
        Self { pointer: format!("{parent}{}", self.pointer), ..self }
    }
}

/// Returns true for control characters, and for marks that change the direction in which text is displayed.
pub fn is_invisible(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Errors of all fields. The client gets all of them in one response.
#[derive(Default)]
pub(crate) struct ValidationErrors(pub(crate) Vec<FieldError>);

impl ValidationErrors {
    pub(crate) fn add(&mut self, pointer: &str, detail: impl Into<String>) {
        self.0.push(FieldError::new(pointer, detail));
    }

    /// Returns the value, or records the error under `pointer` and returns `None`.
    pub(crate) fn take<T>(&mut self, pointer: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|detail| self.add(pointer, detail)).ok()
    }
}
