//! Errors of commands whose file another process has open. The errors name the process, and what to do.

use nobat_sqlite::{BackupError, Holder, OpenError};

/// Flags of `nobat keys` that the suggested command omits. The suggested command calls a server instead of
/// opening a store, and must not show a key.
const DROPPED: [&str; 6] = ["--data", "--backend", "--table", "--queue-url", "--retention-days", "--key"];

/// Adds advice to an error if its cause is that another process has the file open.
pub(crate) fn advise(error: anyhow::Error, advice: impl FnOnce(&Holder) -> String) -> anyhow::Error {
    let ((Some(in_use), _) | (_, Some(BackupError::Open(in_use)))) =
        (error.downcast_ref(), error.downcast_ref())
    else {
        return error;
    };
    match in_use {
        OpenError::InUse { holder, .. } => anyhow::anyhow!("{in_use}; {}", advice(holder)),
        _ => error,
    }
}

/// Returns the advice for `nobat serve`, which needs a file of its own.
pub(crate) fn choose_another(_: &Holder) -> String {
    "stop that process, or name another file with --data (NOBAT_DATA)".to_owned()
}

/// Returns the advice for `nobat restore`, which needs a closed file.
pub(crate) fn stop_first(_: &Holder) -> String {
    "stop that process, then run this command again".to_owned()
}

/// Returns the advice for a command that can call the server instead: the same command with the server's URL.
pub(crate) fn run_through(holder: &Holder) -> String {
    match holder.url() {
        Some(url) => {
            let command = through(std::env::args(), &url);
            format!("run `{command}` instead, with an admin key in NOBAT_KEY if the server requires keys")
        }
        None => "wait until that process has ended, then run this command again".to_owned(),
    }
}

/// Returns the command line with the URL of a server instead of the flags that name the store.
fn through(arguments: impl Iterator<Item = String>, url: &str) -> String {
    let mut words = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let (flag, has_value) =
            argument.split_once('=').map_or((argument.as_str(), false), |(flag, _)| (flag, true));
        if !DROPPED.contains(&flag) {
            words.push(quoted(&argument));
        } else if !has_value {
            arguments.next();
        }
    }
    // Inserts the URL after the program, `keys` and, usually, the subcommand.
    words.splice(words.len().min(3)..words.len().min(3), ["--url".to_owned(), quoted(url)]);
    words.join(" ")
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@+%[]".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggested_command_names_the_server_and_omits_the_key() {
        let url = "http://127.0.0.1:8080";
        for (given, expected) in [
            (vec!["nobat", "keys", "create"], "nobat keys create --url http://127.0.0.1:8080"),
            (
                vec![
                    "./nobat",
                    "keys",
                    "create",
                    "--data",
                    "my file.db",
                    "--tenant",
                    "acme",
                    "--label",
                    "the shop's",
                ],
                r"./nobat keys create --url http://127.0.0.1:8080 --tenant acme --label 'the shop'\''s'",
            ),
            (
                vec!["nobat", "keys", "--data=x.db", "list", "--key", "nb_live_x", "--json"],
                "nobat keys list --url http://127.0.0.1:8080 --json",
            ),
            (
                vec!["nobat", "keys", "--json", "list", "--key=nb_live_x"],
                "nobat keys --json --url http://127.0.0.1:8080 list",
            ),
        ] {
            assert_eq!(through(given.into_iter().map(str::to_owned), url), expected);
        }
    }

    #[test]
    fn other_errors_stay_unchanged() {
        let error = advise(anyhow::Error::new(OpenError::Foreign).context("cannot use x.db"), stop_first);
        assert_eq!(format!("{error:#}"), format!("cannot use x.db: {}", OpenError::Foreign));
        let holder = Holder { process: Some(7), address: None };
        let error = BackupError::Open(OpenError::InUse { path: "/x.db".into(), holder });
        let advised = advise(error.into(), stop_first).to_string();
        assert_eq!(
            advised,
            "/x.db is in use by the nobat process 7; stop that process, then run this command again"
        );
    }
}
