//! The undo log of a file: what stood where something was written, since the file was last synced.

use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use rand::RngExt;
use rand::rngs::StdRng;

/// What remains of the writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// The first so many, and nothing of those that came later.
    Earliest,
    /// Any sector of any write, the last one or an earlier one, but not something in between.
    Sectors,
}

/// What was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// How many writes, in whole or in part.
    pub writes: usize,
    /// How many of these in part.
    pub torn: usize,
}

/// What a disk writes whole or not at all, in bytes.
const SECTOR: usize = 512;
/// The length of what stands in front of the old bytes (`struct record` in `disk.c`).
const HEADER: usize = 32;

/// One write, or a truncation, which is a write of no bytes. (One that remains leaves zeros where it cut: SQLite truncates nothing that
/// it has not synced before, save for files that it is about to remove.)
#[derive(Debug)]
struct Write<'a> {
    offset: usize,
    count: usize,
    /// How long the file was before.
    size_before: usize,
    /// What stood there, as far as the file went.
    old: &'a [u8],
}

/// Brings a file back to where it stood before some of the writes in its undo log.
pub fn undo(log: &Path, file: &Path, rest: Rest, chance: &mut StdRng) -> std::io::Result<Lost> {
    let log = std::fs::read(log)?;
    let writes = read(&log);
    // What is not there has been deleted.
    if writes.is_empty() || !file.exists() {
        return Ok(Lost::default());
    }
    let mut image = std::fs::read(file)?;
    let lost = lose(&writes, &mut image, rest, chance);
    std::fs::write(file, image)?;
    Ok(lost)
}

/// All writes that are told of in whole: the program was killed before it could begin with one that is not.
fn read(mut log: &[u8]) -> Vec<Write<'_>> {
    let mut writes = Vec::new();
    while let Some((header, rest)) = log.split_at_checked(HEADER) {
        let field = |number: usize| usize::from_ne_bytes(std::array::from_fn(|byte| header[8 * number + byte]));
        let Some((old, rest)) = rest.split_at_checked(field(3)) else { break };
        writes.push(Write { offset: field(0), count: field(1), size_before: field(2), old });
        log = rest;
    }
    writes
}

/// Takes the writes back, the last one first. A sector of which one write remains keeps what came before that, too.
fn lose(writes: &[Write<'_>], image: &mut Vec<u8>, rest: Rest, chance: &mut StdRng) -> Lost {
    let kept = match rest {
        Rest::Earliest => chance.random_range(0..=writes.len()),
        Rest::Nothing | Rest::Sectors => 0,
    };
    let (mut settled, mut lost) = (HashSet::new(), Lost::default());
    let mut size = writes.first().map_or(image.len(), |write| write.size_before);
    for (number, write) in writes.iter().enumerate().rev() {
        let (mut remaining, mut gone) = (0, 0);
        for sector in write.sectors() {
            let remains = number < kept || (rest == Rest::Sectors && write.count > 0 && chance.random_bool(0.5));
            if remains || settled.contains(&sector) {
                settled.insert(sector);
                size = size.max((write.offset + write.count).min((sector + 1) * SECTOR));
                remaining += 1;
            } else {
                write.take_back(sector * SECTOR..(sector + 1) * SECTOR, image);
                gone += 1;
            }
        }
        lost.writes += usize::from(gone > 0);
        lost.torn += usize::from(gone > 0 && remaining > 0);
    }
    image.resize(size, 0);
    lost
}

impl Write<'_> {
    /// Where it ended; of a truncation, where the file did.
    fn end(&self) -> usize {
        self.offset + self.count.max(self.old.len())
    }

    fn sectors(&self) -> Range<usize> {
        self.offset / SECTOR..self.end().div_ceil(SECTOR)
    }

    /// Puts back what stood there before, between those places.
    fn take_back(&self, within: Range<usize>, image: &mut Vec<u8>) {
        let (from, to) = (within.start.max(self.offset), within.end.min(self.end()));
        if image.len() < to {
            image.resize(to, 0);
        }
        for (place, byte) in image.iter_mut().enumerate().take(to).skip(from) {
            *byte = self.old.get(place - self.offset).copied().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// A file that is written to, and the log of it.
    #[derive(Default)]
    struct Made {
        image: Vec<u8>,
        log: Vec<u8>,
    }

    impl Made {
        fn of(image: &[u8]) -> Self {
            Self { image: image.to_vec(), log: Vec::new() }
        }

        fn note(&mut self, offset: usize, count: usize, until: usize) {
            let old = self.image.get(offset..until.min(self.image.len())).unwrap_or_default();
            for field in [offset, count, self.image.len(), old.len()] {
                self.log.extend(field.to_ne_bytes());
            }
            self.log.extend(old);
        }

        fn write(mut self, offset: usize, bytes: &[u8]) -> Self {
            let end = offset + bytes.len();
            self.note(offset, bytes.len(), end);
            self.image.resize(self.image.len().max(end), 0);
            self.image[offset..end].copy_from_slice(bytes);
            self
        }

        fn truncate(mut self, size: usize) -> Self {
            self.note(size, 0, usize::MAX);
            self.image.truncate(size);
            self
        }

        fn cut(mut self, rest: Rest, seed: u64) -> (Vec<u8>, Lost) {
            let lost = lose(&read(&self.log), &mut self.image, rest, &mut StdRng::seed_from_u64(seed));
            (self.image, lost)
        }
    }

    #[test]
    fn without_a_rest_the_file_is_as_it_was_when_it_was_synced() {
        let (image, lost) = Made::of(b"abcdef").write(1, b"XX").write(4, b"YYYYYY").truncate(3).write(2, b"ZZ").cut(Rest::Nothing, 1);
        assert_eq!((image.as_slice(), lost), (b"abcdef".as_slice(), Lost { writes: 4, torn: 0 }));
    }

    #[test]
    fn what_was_written_last_is_lost_first() {
        let made = || Made::of(b"abcdef").write(0, b"X").write(5, b"YYY").write(1, b"Z");
        let stages: [&[u8]; 4] = [b"abcdef", b"Xbcdef", b"XbcdeYYY", b"XZcdeYYY"];
        let seen: HashSet<Vec<u8>> = (0..100).map(|seed| made().cut(Rest::Earliest, seed).0).collect();
        assert_eq!(seen, stages.map(<[u8]>::to_vec).into());
    }

    #[test]
    fn each_sector_stands_as_one_of_the_writes_left_it() {
        let made = || Made::of(&[b'a'; SECTOR]).write(0, &[b'b'; 2 * SECTOR]).write(0, &[b'c'; SECTOR]);
        let mut seen: HashSet<(u8, Option<u8>)> = HashSet::new();
        for seed in 0..100 {
            let (image, _) = made().cut(Rest::Sectors, seed);
            for sector in image.chunks(SECTOR) {
                assert!(sector.len() == SECTOR && sector.iter().all(|byte| *byte == sector[0]), "a sector is whole");
            }
            seen.insert((image[0], image.get(SECTOR).copied()));
        }
        let all = [b'a', b'b', b'c'].into_iter().flat_map(|first| [(first, None), (first, Some(b'b'))]);
        assert_eq!(seen, all.collect());
    }

    #[test]
    fn a_write_that_is_half_lost_is_torn() {
        let torn = (0..100).filter(|seed| Made::default().write(0, &[b'b'; 2 * SECTOR]).cut(Rest::Sectors, *seed).1.torn == 1);
        assert!((30..70).contains(&torn.count()), "half of the time");
    }

    #[test]
    fn of_a_write_that_had_not_begun_nothing_is_taken_back() {
        let mut made = Made::of(b"abc").write(0, b"X");
        made.log.extend([0; HEADER - 1]);
        assert_eq!(made.cut(Rest::Nothing, 1).0, b"abc");
    }
}
