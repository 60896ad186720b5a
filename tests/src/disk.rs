//! Faulty disk below the program: it loses unsynced writes when the power is cut, is full, or fails.
//!
//! `tests/disk/disk.c` is a library that is preloaded into the program. This module controls it from outside.

pub mod undo;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::disk::undo::{Lost, Rest};
use crate::harness::program::workspace;

/// Disk and its files.
pub struct Disk {
    /// Folder of the program's files.
    folder: PathBuf,
    /// Folder of everything else: the library, the undo logs and the fault file.
    workshop: PathBuf,
    cache: Cache,
}

/// Fate of unsynced writes when the power is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// The disk keeps them.
    None,
    /// The disk can lose any of them. The program syncs every COMMIT, as nobat does.
    Forgets,
    /// The disk can lose any of them, and COMMITs are not synced, as with SQLite's `synchronous=NORMAL`:
    /// accepted tasks can be lost.
    ForgetsCommits,
}

/// Fault of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No file can grow (`ENOSPC`).
    Full,
    /// Nothing can be written (`EROFS`).
    ReadOnly,
    /// Nothing can be written or synced (`EIO`).
    Broken,
}

/// Losses by the power cuts of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Losses {
    /// Number of power cuts.
    pub cuts: usize,
    /// Number of cuts that lost writes of the write-ahead log: a transaction that was not answered yet.
    pub in_commits: usize,
    /// Number of cuts that lost writes of the database file itself, in the middle of a checkpoint.
    pub in_checkpoints: usize,
    /// Number of writes that were lost, whole or in part.
    pub writes: usize,
    /// Number of writes that were lost in part.
    pub torn: usize,
}

impl Disk {
    /// Creates a disk with its files in `folder/data`.
    pub fn new(folder: &Path, cache: Cache) -> anyhow::Result<Self> {
        // The program names its files by absolute paths without symbolic links.
        let workshop = folder.canonicalize()?;
        let disk = Self { folder: workshop.join("data"), workshop, cache };
        for folder in [&disk.folder, &disk.undo()] {
            std::fs::create_dir_all(folder)?;
        }
        let source = workspace().join("tests/disk/disk.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O2", "-o"]).arg(disk.library());
        let status = compiler.arg(source).args(["-ldl", "-lpthread"]).status().context("cc cannot be run")?;
        ensure!(status.success(), "cc failed");
        Ok(disk)
    }

    /// Returns the path of the database.
    pub fn data(&self) -> PathBuf {
        self.folder.join("nobat.db")
    }

    /// Returns the environment variables that put a program on this disk.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let text = |path: &Path| path.display().to_string();
        let mut variables = vec![
            ("LD_PRELOAD", text(&self.library())),
            ("DISK_FOLDER", text(&self.folder)),
            ("DISK_FAULT", text(&self.fault())),
        ];
        if self.cache != Cache::None {
            variables.push(("DISK_UNDO", text(&self.undo())));
        }
        if self.cache == Cache::ForgetsCommits {
            variables.push(("DISK_LAZY", "1".to_owned()));
        }
        variables
    }

    /// Gives the disk this fault from now on.
    pub fn fail(&self, fault: Fault) {
        let word = match fault {
            Fault::Full => "full",
            Fault::ReadOnly => "read-only",
            Fault::Broken => "broken",
        };
        std::fs::write(self.fault(), word).expect("the fault file can be written");
    }

    /// Ends the fault.
    pub fn heal(&self) {
        std::fs::remove_file(self.fault()).expect("the fault file can be removed");
    }

    /// Cuts the power after the program has been killed: some unsynced writes of each file are lost.
    ///
    /// Either all of them are lost, or the latest, or any sectors of any of them, because a disk writes in
    /// its own order.
    pub fn cut(&self, chance: &mut StdRng, losses: &mut Losses) -> anyhow::Result<()> {
        losses.cuts += 1;
        let rest = [Rest::Nothing, Rest::Earliest, Rest::Sectors][chance.random_range(0..3)];
        for entry in self.undo().read_dir()? {
            let undo = entry?.path();
            let file = self.folder.join(undo.file_stem().context("the undo log has a name")?);
            let lost = undo::undo(&undo, &file, rest, chance)
                .with_context(|| format!("{} cannot be undone", file.display()))?;
            losses.count(&file, lost);
            std::fs::remove_file(undo)?;
        }
        // The index is memory that processes share, so a power cut removes it.
        let index = self.folder.join("nobat.db-shm");
        if index.exists() {
            std::fs::remove_file(index)?;
        }
        Ok(())
    }

    fn library(&self) -> PathBuf {
        self.workshop.join("disk.so")
    }

    fn undo(&self) -> PathBuf {
        self.workshop.join("undo")
    }

    fn fault(&self) -> PathBuf {
        self.workshop.join("fault")
    }
}

impl Losses {
    fn count(&mut self, file: &Path, lost: Lost) {
        let has_lost = usize::from(lost.writes > 0);
        match file.extension() {
            Some(extension) if extension == "db" => self.in_checkpoints += has_lost,
            _ => self.in_commits += has_lost,
        }
        self.writes += lost.writes;
        self.torn += lost.torn;
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count, meaning) in [
            ("power cuts", self.cuts, ""),
            ("in commits", self.in_commits, "cuts that took writes from the log"),
            ("in checkpoints", self.in_checkpoints, "cuts that took writes from the file itself"),
            ("writes lost", self.writes, ""),
            ("torn", self.torn, "lost in part"),
        ] {
            writeln!(f, "{}", format!("{name:<14}{count:>8}  {meaning}").trim_end())?;
        }
        Ok(())
    }
}
