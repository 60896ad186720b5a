//! Decodes content codings of responses (RFC 9110, section 8.4.1): gzip, deflate and br. Memory and work are
//! limited.

use std::io::Read;

use brotli_decompressor::{BrotliDecoderParameter, Decompressor};
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

/// Maximum length of a response's body, in bytes, after decoding. Longer bodies are cut.
pub const MAX_BODY: usize = 64 * 1024;

/// Maximum number of nested codings that are decoded.
const MAX_CODINGS: usize = 3;

/// Maximum length of a body before decoding, in bytes. It is larger than [`MAX_BODY`], because
/// content that cannot be compressed becomes a little longer.
pub(crate) const MAX_ENCODED: usize = MAX_BODY + 1_024;

/// Completeness of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The whole body.
    Whole,
    /// The beginning. The rest exceeds [`MAX_BODY`].
    Cut,
    /// The beginning. The rest cannot be decoded.
    Damaged,
}

/// A coding that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
}

/// Decodes the codings that the headers name, the last coding first, and returns at most [`MAX_BODY`] bytes.
///
/// Removes `content-encoding` and `content-length`, which no longer describe the body. If the coding is
/// unknown, or if `content-encoding` is wrong, returns the body unchanged and keeps the headers.
pub(crate) fn decode(headers: &mut HeaderMap, body: Vec<u8>, is_cut: bool) -> (Vec<u8>, Extent) {
    let Some(codings) = codings(headers).filter(|codings| !codings.is_empty() && !body.is_empty()) else {
        return shortened(body, is_cut);
    };
    let mut content = None;
    let mut extent = Extent::Whole;
    for (place, coding) in codings.iter().rev().enumerate() {
        let limit = if place + 1 == codings.len() { MAX_BODY } else { MAX_ENCODED };
        let (decoded, found) = undo(*coding, content.as_deref().unwrap_or(&body), limit);
        if decoded.is_empty() && found == Extent::Damaged {
            return shortened(body, is_cut);
        }
        extent = if extent == Extent::Whole { found } else { extent };
        content = Some(decoded);
    }
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    // A body that was cut has no end, so a decoding error is expected.
    let extent = if is_cut { Extent::Cut } else { extent };
    (content.unwrap_or_default(), extent)
}

/// Returns the codings in the order in which they were applied. `None` if a coding is unknown, or if there
/// are more than [`MAX_CODINGS`].
fn codings(headers: &HeaderMap) -> Option<Vec<Coding>> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.to_str().ok()?.split(',').map(|name| name.trim().to_ascii_lowercase()) {
            match name.as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" => codings.push(Coding::Gzip),
                "deflate" => codings.push(Coding::Deflate),
                "br" => codings.push(Coding::Brotli),
                _ => return None,
            }
        }
    }
    (codings.len() <= MAX_CODINGS).then_some(codings)
}

fn undo(coding: Coding, body: &[u8], limit: usize) -> (Vec<u8>, Extent) {
    match coding {
        Coding::Gzip => drain(MultiGzDecoder::new(body), limit),
        // RFC 9110 defines `deflate` as the zlib format. Some servers send bare deflate instead (see the note
        // in section 8.4.1.2).
        Coding::Deflate => match drain(ZlibDecoder::new(body), limit) {
            (decoded, Extent::Damaged) if decoded.is_empty() => {
                whole_or_nothing(drain(DeflateDecoder::new(body), limit))
            }
            decoded => decoded,
        },
        Coding::Brotli => {
            let mut decoder = Decompressor::new(body, 0);
            // Windows larger than 16 MiB are not part of RFC 7932.
            decoder.set_parameter(BrotliDecoderParameter::BROTLI_DECODER_PARAM_LARGE_WINDOW, 0);
            whole_or_nothing(drain(decoder, limit))
        }
    }
}

/// Drops content that is damaged, because the text may have no coding at all: bare deflate and brotli have no
/// signature, and the beginning of any text may look like them.
fn whole_or_nothing((content, extent): (Vec<u8>, Extent)) -> (Vec<u8>, Extent) {
    if extent == Extent::Damaged { (Vec::new(), extent) } else { (content, extent) }
}

/// Reads up to the limit, and checks if more content follows.
fn drain(mut decoder: impl Read, limit: usize) -> (Vec<u8>, Extent) {
    let mut content = Vec::new();
    let mut chunk = [0; 8 * 1_024];
    loop {
        match decoder.read(&mut chunk) {
            Ok(0) => return (content, Extent::Whole),
            Ok(length) if length > limit - content.len() => {
                content.extend_from_slice(&chunk[..limit - content.len()]);
                return (content, Extent::Cut);
            }
            Ok(length) => content.extend_from_slice(&chunk[..length]),
            Err(_) => return (content, Extent::Damaged),
        }
    }
}

fn shortened(mut body: Vec<u8>, is_cut: bool) -> (Vec<u8>, Extent) {
    let extent = if is_cut || body.len() > MAX_BODY { Extent::Cut } else { Extent::Whole };
    body.truncate(MAX_BODY);
    (body, extent)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(content: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(content: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// A mebibyte of zeros in brotli, with a window of 16 MiB.
    const BROTLI_BOMB: &[u8] = b"\x5f\xff\xff\x8f\x7f\x02\x20\x1e\x0b\x04\x72\xef\x1f\x00";

    fn decoded(coding: &'static str, body: Vec<u8>) -> (Vec<u8>, Extent, bool) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, coding.parse().unwrap());
        headers.insert(CONTENT_LENGTH, body.len().into());
        let (content, extent) = decode(&mut headers, body, false);
        assert_eq!(headers.contains_key(CONTENT_ENCODING), headers.contains_key(CONTENT_LENGTH));
        (content, extent, headers.is_empty())
    }

    #[test]
    fn known_codings_are_decoded() {
        let text = b"a text, a text, a text".to_vec();
        for (coding, body) in [
            ("gzip", gzip(&text)),
            ("X-GZip", gzip(&text)),
            ("identity, gzip", gzip(&text)),
            ("gzip", [gzip(b"a text, "), gzip(b"a text, a text")].concat()),
            ("deflate", zlib(&text)),
            ("deflate", deflate(&text)),
            ("deflate, gzip", gzip(&zlib(&text))),
        ] {
            assert_eq!(decoded(coding, body), (text.clone(), Extent::Whole, true), "{coding}");
        }
        let whole = vec![b'x'; MAX_BODY];
        assert_eq!(decoded("gzip", gzip(&whole)), (whole, Extent::Whole, true));
    }

    #[test]
    fn compression_bombs_are_cut() {
        let zeros = vec![0; 8 << 20];
        let bomb = gzip(&zeros);
        for (coding, body) in
            [("gzip", bomb.clone()), ("gzip, gzip", gzip(&bomb)), ("br", BROTLI_BOMB.to_vec())]
        {
            let (content, extent, _) = decoded(coding, body);
            assert_eq!((content.len(), extent), (MAX_BODY, Extent::Cut), "{coding}");
        }
        let (content, extent, _) = decoded("gzip", [gzip(b"").repeat(3_000), gzip(b"end")].concat());
        assert_eq!((&content[..], extent), (&b"end"[..], Extent::Whole));
    }

    #[test]
    fn damaged_bodies_keep_their_beginning() {
        let text: Vec<u8> = (0..20_000_u32)
            .flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes())
            .take(30_000)
            .collect();
        let mut body = gzip(&text);
        body.truncate(body.len() - 100);
        let (content, extent, is_without) = decoded("gzip", body);
        assert!(!content.is_empty() && text.starts_with(&content) && is_without);
        assert_eq!(extent, Extent::Damaged);
    }

    #[test]
    fn undecodable_bodies_stay_unchanged() {
        for coding in ["gzip", "deflate", "br", "zstd", "gzip, zstd"] {
            for body in ["plain text", "{\"ok\": true}", "[]", "<html></html>"] {
                assert_eq!(
                    decoded(coding, body.into()),
                    (body.into(), Extent::Whole, false),
                    "{coding}: {body}"
                );
            }
        }
        assert!(!decoded("gzip, gzip, gzip, gzip", gzip(b"x")).2, "more than three codings are not decoded");
        assert_eq!(
            decoded("gzip", Vec::new()),
            (Vec::new(), Extent::Whole, false),
            "an empty body stays empty, as after HEAD"
        );
    }
}
