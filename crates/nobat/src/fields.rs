//! Flags of `nobat submit`: one for each field of a task.

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};
use serde_json::value::RawValue;

use crate::response::to_json;

/// Fields given as flags: JSON pointer into the request body, and JSON value.
pub(crate) struct Fields(pub(crate) Vec<(&'static str, Box<RawValue>)>);

/// Field of a task that has its own flag.
struct Field {
    flag: &'static str,
    pointer: &'static str,
    form: Form,
    help: &'static str,
}

/// Conversion of a flag's value into JSON.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// String.
    Text,
    /// Number, sent as it is written.
    Number,
    /// Array of numbers, separated by commas.
    Numbers,
    /// Array of strings, separated by commas.
    Words,
    /// Object of `NAME=TEXT` pairs. The flag occurs once for each name.
    Pairs,
}

const fn field(flag: &'static str, pointer: &'static str, form: Form, help: &'static str) -> Field {
    Field { flag, pointer, form, help }
}

/// Every field of a task except `kind` and `payload`, which `nobat submit` defines itself. A test compares
/// them with the OpenAPI document.
const FIELDS: [Field; 24] = [
    field("queue", "/queue", Form::Text, "Queue. Default: default"),
    field(
        "endpoint",
        "/endpoint",
        Form::Text,
        "Endpoint that a task of kind http calls. The payload then has a path instead of a url",
    ),
    field(
        "limit-key",
        "/limit_key",
        Form::Text,
        "Limit key: tasks with the same key share the limits of that key",
    ),
    field("delay", "/delay", Form::Number, "Seconds until the earliest start. Default: 0. Not with --run-at"),
    field("run-at", "/run_at", Form::Text, "Earliest start (RFC 3339)"),
    field(
        "timeout",
        "/timeout",
        Form::Number,
        "Maximum duration of an attempt in seconds. Default: that of the endpoint, else 30",
    ),
    field(
        "expires-at",
        "/expires_at",
        Form::Text,
        "Time from which the task is no longer started (RFC 3339). Default: none",
    ),
    field("label", "/labels", Form::Pairs, "Label, as NAME=TEXT. Can be given up to 20 times"),
    field(
        "retry-max-attempts",
        "/retry/max_attempts",
        Form::Number,
        "Maximum number of attempts, the first included. Default: 5",
    ),
    field(
        "retry-initial-delay",
        "/retry/initial_delay",
        Form::Number,
        "Maximum delay before the first retry in seconds. Default: 10",
    ),
    field(
        "retry-multiplier",
        "/retry/multiplier",
        Form::Number,
        "Factor by which the delay grows from retry to retry. Default: 2",
    ),
    field(
        "retry-max-delay",
        "/retry/max_delay",
        Form::Number,
        "Maximum delay between attempts in seconds. Default: 3600",
    ),
    field(
        "retry-jitter",
        "/retry/jitter",
        Form::Text,
        "Spread of delays: full (from 0 to the delay) or none. Default: full",
    ),
    field(
        "retry-max-age",
        "/retry/max_age",
        Form::Number,
        "Seconds after acceptance or a replay after which no retry starts. Default: no limit",
    ),
    field(
        "retry-delays",
        "/retry/delays",
        Form::Numbers,
        "Delays before each retry in seconds, instead of a growing delay: 5,60,600",
    ),
    field("callback-url", "/callback/url", Form::Text, "URL to which the task is reported when it has ended"),
    field(
        "callback-on",
        "/callback/on",
        Form::Words,
        "Ends to report: succeeded,failed,canceled,expired. Default: all",
    ),
    field(
        "callback-retry-max-attempts",
        "/callback/retry/max_attempts",
        Form::Number,
        "Like --retry-max-attempts, for the report",
    ),
    field(
        "callback-retry-initial-delay",
        "/callback/retry/initial_delay",
        Form::Number,
        "Like --retry-initial-delay, for the report",
    ),
    field(
        "callback-retry-multiplier",
        "/callback/retry/multiplier",
        Form::Number,
        "Like --retry-multiplier, for the report",
    ),
    field(
        "callback-retry-max-delay",
        "/callback/retry/max_delay",
        Form::Number,
        "Like --retry-max-delay, for the report",
    ),
    field(
        "callback-retry-jitter",
        "/callback/retry/jitter",
        Form::Text,
        "Like --retry-jitter, for the report",
    ),
    field(
        "callback-retry-max-age",
        "/callback/retry/max_age",
        Form::Number,
        "Like --retry-max-age, for the report",
    ),
    field(
        "callback-retry-delays",
        "/callback/retry/delays",
        Form::Numbers,
        "Like --retry-delays, for the report",
    ),
];

/// Parses the number of a flag. Returns it as written, which is JSON.
pub(crate) fn number(given: &str) -> Result<String, &'static str> {
    let is_number = serde_json::from_str::<&RawValue>(given).is_ok()
        && given.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    if is_number { Ok(given.to_owned()) } else { Err("expected a number such as 30 or 0.5") }
}

/// Returns the flag for the field at that pointer.
pub(crate) fn flag_of(pointer: &str) -> Option<String> {
    let is_there = |field: &&Field| {
        pointer == field.pointer
            || pointer.strip_prefix(field.pointer).is_some_and(|rest| rest.starts_with('/'))
    };
    let field = FIELDS.iter().find(is_there)?;
    Some(format!("--{}{}", field.flag, pointer[field.pointer.len()..].replacen('/', " ", 1)))
}

impl Field {
    fn argument(&self) -> Arg {
        let argument = Arg::new(self.flag).long(self.flag).help(self.help).help_heading(
            match self.pointer.split('/').nth(1) {
                Some("retry") => Some("Retries"),
                Some("callback") => Some("Report (callback)"),
                _ => None,
            },
        );
        match self.form {
            Form::Text => {
                argument.value_name("TEXT").value_parser(|given: &str| Ok::<_, &str>(to_json(given)))
            }
            Form::Number => argument.value_name("NUMBER").value_parser(number),
            Form::Numbers => argument.value_name("NUMBERS").value_delimiter(',').value_parser(number),
            Form::Words => argument
                .value_name("WORDS")
                .value_delimiter(',')
                .value_parser(|given: &str| Ok::<_, &str>(to_json(given))),
            Form::Pairs => {
                argument.value_name("NAME=TEXT").action(ArgAction::Append).value_parser(|given: &str| {
                    match given.split_once('=') {
                        Some((name, text)) => Ok(format!("{}:{}", to_json(name), to_json(text))),
                        None => Err("expected NAME=TEXT"),
                    }
                })
            }
        }
    }

    /// Returns the JSON of the flag's values. Each value is JSON or, for pairs, a member of an object.
    fn json(&self, values: &[&str]) -> String {
        match self.form {
            Form::Text | Form::Number => values.concat(),
            Form::Numbers | Form::Words => format!("[{}]", values.join(",")),
            Form::Pairs => format!("{{{}}}", values.join(",")),
        }
    }
}

impl Args for Fields {
    fn augment_args(command: clap::Command) -> clap::Command {
        FIELDS.iter().fold(command, |command, field| command.arg(field.argument()))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Fields {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = FIELDS.iter().filter_map(|field| {
            let values: Vec<&str> = matches.get_many::<String>(field.flag)?.map(String::as_str).collect();
            Some((field.pointer, RawValue::from_string(field.json(&values)).ok()?))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Returns the pointers of all fields in the schema of a task.
    fn pointers(document: &Value, schema: &Value, parent: &str, found: &mut BTreeSet<String>) {
        let choice = schema["oneOf"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|choice| choice["type"] != "null")
            .unwrap_or(schema);
        let schema =
            choice["$ref"].as_str().map_or(choice, |reference| document.pointer(&reference[1..]).unwrap());
        let properties = schema["properties"].as_object();
        for (name, inner) in properties.into_iter().flatten() {
            pointers(document, inner, &format!("{parent}/{name}"), found);
        }
        if properties.is_none() {
            found.insert(parent.to_owned());
        }
    }

    #[test]
    fn every_field_of_a_task_has_a_flag_of_its_name() {
        let document = serde_json::to_value(nobat_api::openapi()).unwrap();
        let mut expected = BTreeSet::new();
        pointers(&document, &document["components"]["schemas"]["Submission"], "", &mut expected);
        let flags = FIELDS.iter().map(|field| field.pointer.to_owned());
        assert_eq!(
            flags.chain(["/kind".to_owned(), "/payload".to_owned()]).collect::<BTreeSet<_>>(),
            expected
        );
        for field in FIELDS.iter().filter(|field| field.form != Form::Pairs) {
            assert_eq!(field.flag, field.pointer[1..].replace(['/', '_'], "-"));
        }
    }

    #[test]
    fn errors_name_the_flag() {
        for (pointer, flag) in [
            ("/delay", "--delay"),
            ("/retry/max_delay", "--retry-max-delay"),
            ("/labels/a", "--label a"),
            ("/retry/delays/0", "--retry-delays 0"),
        ] {
            assert_eq!(flag_of(pointer).as_deref(), Some(flag));
        }
        assert_eq!((flag_of("/payload/url"), flag_of("/kind"), flag_of("")), (None, None, None));
        for wrong in ["soon", "+1", ".5", "1,2", "\"1\"", "", " 1"] {
            assert!(number(wrong).is_err(), "{wrong}");
        }
    }
}
