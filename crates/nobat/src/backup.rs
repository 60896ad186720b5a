//! `nobat backup` and `nobat restore`: consistent copies of the SQLite file.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::{in_use, vault};

/// `nobat backup`
#[derive(Args)]
pub(crate) struct Backup {
    /// Path of the copy. It must not exist
    to: PathBuf,
    /// SQLite file to copy. A server may be running on it
    #[arg(long, env = "NOBAT_DATA", default_value = "nobat.db")]
    data: PathBuf,
}

/// `nobat restore`
#[derive(Args)]
pub(crate) struct Restore {
    /// Path of the copy
    from: PathBuf,
    /// SQLite file to create from the copy. It must not exist
    #[arg(long, env = "NOBAT_DATA", default_value = "nobat.db")]
    data: PathBuf,
}

impl Backup {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        nobat_sqlite::backup(&self.data, &self.to)?;
        eprintln!("{} is a copy of {}", self.to.display(), self.data.display());
        let key = vault::key_file(&self.data);
        if key.exists() {
            eprintln!(
                "the copy does not contain the master key: keep a copy of {} in another place",
                key.display()
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Restore {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        nobat_sqlite::restore(&self.from, &self.data)
            .map_err(|error| in_use::advise(error.into(), in_use::stop_first))?;
        eprintln!(
            "{} was created from {}; tasks accepted after the backup are not in it",
            self.data.display(),
            self.from.display()
        );
        let key = vault::key_file(&self.data);
        if !key.exists() {
            eprintln!(
                "secrets are readable only with the master key from the time of the backup: restore the key file as {}",
                key.display()
            );
        }
        Ok(ExitCode::SUCCESS)
    }
}
