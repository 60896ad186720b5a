//! Bytes as text: base64, and Crockford's base 32 in lower case, which is easy to read out and needs no
//! escapes.

use data_encoding::BASE64_NOPAD;

/// Digits of base 32: all digits and letters except `i`, `l`, `o` and `u`.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Returns the number of digits for that many bytes.
pub(crate) const fn length(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Writes the bytes as digits into `digits`, whose length is [`length`]. The padding is in front, so that
/// digits sort like bytes.
pub(crate) fn encode(bytes: &[u8], digits: &mut [u8]) {
    let (mut left, mut bits, mut bytes) = (0_u16, 0, bytes.iter().rev());
    for digit in digits.iter_mut().rev() {
        if bits < 5 {
            left |= u16::from(bytes.next().copied().unwrap_or(0)) << bits;
            bits += 8;
        }
        *digit = DIGITS[usize::from(left & 31)];
        left >>= 5;
        bits -= 5;
    }
}

/// Decodes what [`encode`] wrote. Returns `None` for any other text.
pub(crate) fn decode<const BYTES: usize>(digits: &str) -> Option<[u8; BYTES]> {
    if digits.len() != length(BYTES) {
        return None;
    }
    let mut bytes = [0; BYTES];
    let (mut left, mut bits, mut places) = (0_u16, 0, bytes.iter_mut().rev());
    for digit in digits.bytes().rev() {
        let value = DIGITS.iter().position(|known| *known == digit)?;
        left |= u16::try_from(value).ok()? << bits;
        bits += 5;
        if bits >= 8
            && let Some(place) = places.next()
        {
            *place = left.to_le_bytes()[0];
            left >>= 8;
            bits -= 8;
        }
    }
    // The remaining bits are padding, which [`encode`] leaves zero.
    (left == 0).then_some(bytes)
}

/// Decodes base64 (RFC 4648, section 4). Padding may be absent or incomplete. Returns `None` for any other
/// text.
pub fn decode_base64(text: &str) -> Option<Vec<u8>> {
    // `data_encoding::BASE64` accepts padding also in the middle of a text. One value would then have several
    // texts.
    let digits = text.trim_end_matches('=');
    let is_padding = text.len() <= digits.len().next_multiple_of(4);
    is_padding.then(|| BASE64_NOPAD.decode(digits.as_bytes()).ok())?
}

/// Decodes base64 that is padded as RFC 4648 requires. Returns `None` for any other text.
pub(crate) fn decode_padded_base64(text: &str) -> Option<Vec<u8>> {
    text.len().is_multiple_of(4).then(|| decode_base64(text))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(bytes: &[u8]) -> String {
        let mut digits = vec![0; length(bytes.len())];
        encode(bytes, &mut digits);
        String::from_utf8(digits).unwrap()
    }

    #[test]
    fn padding_is_in_front() {
        assert_eq!(encoded(&[0xff]), "7z");
        assert_eq!(encoded(&[0; 16]), "0".repeat(26));
        assert_eq!(decode::<1>("7z"), Some([0xff]));
        assert_eq!(decode::<1>("8z"), None, "the value exceeds one byte");
        assert_eq!(decode::<1>("7Z"), None, "upper case is refused");
        assert_eq!(decode::<1>("7"), None);
    }

    #[test]
    fn base64_is_refused_unless_canonical() {
        for (text, bytes) in [("", &b""[..]), ("AQ==", &[1]), ("AQI=", &[1, 2]), ("+/8B", &[251, 255, 1])] {
            assert_eq!(
                (decode_base64(text).as_deref(), decode_padded_base64(text).as_deref()),
                (Some(bytes), Some(bytes)),
                "{text}"
            );
        }
        for text in ["AQ", "AQ=", "AQI"] {
            assert!(decode_base64(text).is_some() && decode_padded_base64(text).is_none(), "{text}");
        }
        for text in [
            "=", "A", "A===", "AQ===", "AQI==", "+/8B=", "+/8B====", "AQ==AQ==", "AQ==AQI=", "AR==", "AQJ=",
            "AQ==\n", "A Q=", "-_8B",
        ] {
            assert_eq!((decode_base64(text), decode_padded_base64(text)), (None, None), "{text}");
        }
    }

    proptest! {
        #[test]
        fn bytes_are_read_back_and_keep_their_order(one: [u8; 16], other: [u8; 16], long: [u8; 24]) {
            prop_assert_eq!(decode(&encoded(&one)), Some(one));
            prop_assert_eq!(decode(&encoded(&long)), Some(long));
            prop_assert_eq!(encoded(&one).cmp(&encoded(&other)), one.cmp(&other));
        }
    }
}
