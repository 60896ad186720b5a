use super::*;

const SECRETS: [&str; 2] = ["correct horse", "battery staple"];

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn hmac_scheme() -> Scheme {
    let scheme = r#"{"hmac": {"header": "X-Signature", "separator": ",", "prefix": "v1=", "content": "{timestamp}.{body}", "timestamp": {"prefix": "t="}}}"#;
    serde_json::from_str(scheme).unwrap()
}

fn sign(secret: &str, time: &str, body: &str) -> String {
    let key = Key::new(HMAC_SHA256, secret.as_bytes());
    data_encoding::HEXLOWER.encode(hmac::sign(&key, format!("{time}.{body}").as_bytes()).as_ref())
}

fn verify(
    scheme: Option<&Scheme>,
    networks: &[&str],
    request: &InboundRequest<'_>,
) -> Result<(), Unverified> {
    let networks: Vec<Network> = networks.iter().map(|text| text.parse().unwrap()).collect();
    let tolerance = Duration::from_mins(5);
    Verifier { scheme, tolerance, networks: &networks, url: None, absent: None }.verify(
        request,
        &SECRETS,
        now(),
    )
}

fn signed(header: &str) -> Result<(), Unverified> {
    let request = InboundRequest::new(vec![("x-signature", header)], None, b"{}");
    verify(Some(&hmac_scheme()), &[], &request)
}

#[test]
fn any_signature_by_any_secret_is_enough() {
    let time = "1800000000";
    let [one, two, other] = [SECRETS[0], SECRETS[1], "tr0ub4dor"].map(|secret| sign(secret, time, "{}"));
    for header in [
        format!("t={time},v1={one}"),
        format!("v1={two},t={time}"),
        format!("t={time}, v0=aa, v1={other}, v1={}", two.to_uppercase()),
    ] {
        assert_eq!(signed(&header), Ok(()), "{header}");
    }
    assert_eq!(signed(&format!("t={time},v1={other}")), Err(Unverified::Wrong));
    assert_eq!(signed(&format!("t={time},v0={one}")), Err(Unverified::Malformed));
}

#[test]
fn empty_and_shortened_signatures_are_refused() {
    let time = "1800000000";
    let right = sign(SECRETS[0], time, "{}");
    for length in (0..right.len()).step_by(2) {
        assert_eq!(signed(&format!("t={time},v1={}", &right[..length])), Err(Unverified::Wrong), "{length}");
    }
    assert_eq!(signed(&format!("t={time},v1={right}00")), Err(Unverified::Wrong));
    assert_eq!(signed(&format!("t={time},v1={}", &right[1..])), Err(Unverified::Malformed));
    assert_eq!(signed(""), Err(Unverified::Missing));
    let twice = format!("t={time},v1={right}");
    let headers = vec![("x-signature", &twice[..]), ("x-signature", &twice[..])];
    let request = InboundRequest::new(headers, None, b"{}");
    assert_eq!(verify(Some(&hmac_scheme()), &[], &request), Err(Unverified::Missing));
}

#[test]
fn time_of_a_signature_must_be_near() {
    let at = |time: &str| signed(&format!("t={time},v1={}", sign(SECRETS[0], time, "{}")));
    assert_eq!((at("1799999700"), at("1800000300")), (Ok(()), Ok(())));
    for time in [
        "1799999699",
        "1800000301",
        "",
        "-1800000000",
        "+1800000000",
        "1800000000.0",
        "18e8",
        "0x6b49d200",
        "1800000000000",
        "99999999999999999999999999",
        "9223372036854775807",
    ] {
        assert_eq!(at(time), Err(Unverified::Timestamp), "{time}");
    }
    let right = sign(SECRETS[0], "1800000000", "{}");
    assert_eq!(signed(&format!("t=1800000001,v1={right}")), Err(Unverified::Wrong), "the time is signed");
    assert_eq!(signed(&format!("t=1800000000,t=1800000000,v1={right}")), Err(Unverified::Wrong));
}

#[test]
fn token_and_password_must_be_equal() {
    let verify = |scheme: &str, header: (&str, &str)| {
        let scheme: Scheme = serde_json::from_str(scheme).unwrap();
        verify(Some(&scheme), &[], &InboundRequest::new(vec![header], None, b""))
    };
    let token =
        |text: &str| verify(r#"{"token": {"header": "X-Token", "prefix": "Bearer "}}"#, ("x-token", text));
    assert_eq!((token("Bearer correct horse"), token("Bearer battery staple")), (Ok(()), Ok(())));
    for text in ["Bearer correct hors", "Bearer correct horsee", "Bearer ", "Bearer CORRECT HORSE"] {
        assert_eq!(token(text), Err(Unverified::Wrong), "{text}");
    }
    assert_eq!((token("correct horse"), token("")), (Err(Unverified::Malformed), Err(Unverified::Malformed)));
    let basic = |text: &str| verify(r#"{"basic": {"user": "bank"}}"#, ("authorization", text));
    let encoded = |text: &str| format!("basic {}", BASE64.encode(text.as_bytes()));
    assert_eq!(basic(&encoded("bank:battery staple")), Ok(()));
    for text in
        ["bank:", ":battery staple", "bank:battery stapl", "other:battery staple", "bankbattery staple"]
    {
        assert_eq!(basic(&encoded(text)), Err(Unverified::Wrong), "{text}");
    }
    assert_eq!(
        (basic("Bearer x"), basic("Basic ?")),
        (Err(Unverified::Malformed), Err(Unverified::Malformed))
    );
}

#[test]
fn networks_admit_only_their_addresses() {
    let from = |address: Option<&str>| {
        let address = address.map(|address| address.parse().unwrap());
        verify(None, &["203.0.113.0/24"], &InboundRequest::new(vec![], address, b""))
    };
    assert_eq!((from(Some("203.0.113.7")), from(Some("::ffff:203.0.113.7"))), (Ok(()), Ok(())));
    assert_eq!((from(Some("203.0.114.7")), from(None)), (Err(Unverified::Network), Err(Unverified::Network)));
}

#[test]
fn signature_over_a_form_does_not_cover_json() {
    let scheme = r#"{"hmac": {"header": "x-signature", "content": "{form}"}}"#;
    let scheme: Scheme = serde_json::from_str(scheme).unwrap();
    let signature = |text: &str| {
        let key = Key::new(HMAC_SHA256, SECRETS[0].as_bytes());
        data_encoding::HEXLOWER.encode(hmac::sign(&key, text.as_bytes()).as_ref())
    };
    let form = "application/x-www-form-urlencoded";
    let of = |content_type: &str, signed: &str, body: &str| {
        let signature = signature(signed);
        let headers = vec![("x-signature", &signature[..]), ("content-type", content_type)];
        verify(Some(&scheme), &[], &InboundRequest::new(headers, None, body.as_bytes()))
    };
    assert_eq!(of(form, "a1b2b3", "b=3&a=1&b=2&b=3"), Ok(()));
    assert_eq!(of(form, "", "a=1"), Err(Unverified::Wrong));
    assert_eq!(of("application/json", "", "{}"), Err(Unverified::Malformed));
}
