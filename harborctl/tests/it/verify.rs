//! `harborctl verify` with published vectors.

use crate::support::{harborctl, run, run_with_input, told};

/// From the Standard Webhooks specification's own libraries.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BODY: &str = "{\"test\": 2432232314}";
const HEADERS: [&str; 6] = [
    "--header",
    "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek",
    "--header",
    "webhook-timestamp: 1614265330",
    "--header",
    "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
];

fn arguments<'a>(body: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let time = ["--at", "1614265330"];
    [&["verify", "--body", body], &HEADERS[..], &time, more].concat()
}

#[test]
fn the_published_vector_verifies_with_the_secret_in_the_environment() {
    let output = harborctl(&arguments(BODY, &[])).env("HARBORHOOK_SECRET", SECRET).output().unwrap();
    assert_eq!(told(&output), (0, "verified\n".to_owned(), String::new()));
}

#[test]
fn the_body_may_come_from_standard_input_and_the_secret_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let output = run_with_input(&arguments("-", &["--secret-file", file.to_str().unwrap()]), BODY);
    assert_eq!(told(&output).0, 0, "{output:?}");
}

#[test]
fn the_secret_may_come_from_standard_input_and_the_body_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let (body, headers) = (folder.path().join("body"), folder.path().join("headers"));
    std::fs::write(&body, BODY).unwrap();
    let header_lines: Vec<&str> = HEADERS.into_iter().skip(1).step_by(2).collect();
    std::fs::write(&headers, header_lines.join("\r\n")).unwrap();
    let body = format!("@{}", body.display());
    let command = ["verify", "--body", &body, "--headers-file", headers.to_str().unwrap(), "--secret-file", "-"];
    let output = run_with_input(&[&command[..], &["--at", "1614265330"]].concat(), SECRET);
    assert_eq!(told(&output).0, 0, "{output:?}");
}

#[test]
fn a_changed_body_a_wrong_secret_and_an_old_time_are_not_verified() {
    let wrong = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx";
    for (body, secret, at) in
        [("{\"test\": 2432232315}", SECRET, "1614265330"), (BODY, wrong, "1614265330"), (BODY, SECRET, "1614265931")]
    {
        let command = [&["--output", "json", "verify", "--body", body, "--at", at], &HEADERS[..]].concat();
        let output = harborctl(&command).env("HARBORHOOK_SECRET", secret).output().unwrap();
        let (code, stdout, _) = told(&output);
        let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((code, &answer["verified"]), (1, &false.into()), "{body} {at}: {stdout}");
        assert!(answer["reason"].is_string(), "{stdout}");
    }
}

#[test]
fn every_scheme_is_recognised_by_its_headers() {
    // Computed with OpenSSL: `printf %s TEXT | openssl dgst -sha256 -hmac 0123456789abcdef`.
    let github = "x-hub-signature-256: sha256=fde19d5ba93fd5a1c750ad3a98c5b9c8d1dbee574c347be6cc753e72a48b4c47";
    let stripe = "stripe-signature: t=1614265330,v1=0d359f9ba554e6a83c3e5453aef1f598c2e3fa475c424382a6a858b8a9a45672";
    let harborhook = "x-harborhook-signature: sha256=a1a2afcd2b33a8eb6ca4106cc4402785a816b4b609cdc43be0b2cdf3fcf2629e";
    for (headers, scheme) in [
        (vec![github], "GitHub"),
        (vec![stripe], "Stripe"),
        (vec![harborhook, "x-harborhook-timestamp: 1614265330"], "HarborHook"),
    ] {
        let mut command = vec!["--output", "json", "verify", "--at", "1614265330", "--body", BODY];
        command.extend(headers.iter().flat_map(|header| ["--header", header]));
        let output = harborctl(&command).env("HARBORHOOK_SECRET", "0123456789abcdef").output().unwrap();
        let (code, stdout, stderr) = told(&output);
        let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
        assert_eq!((code, &answer["scheme"]), (0, &scheme.into()), "{stdout}");
    }
}

#[test]
fn wrong_usage_says_what_to_do() {
    for (command, advice) in [
        (arguments(BODY, &[]), "--secret-file"),
        (arguments("-", &["--secret-file", "-"]), "only once"),
        (arguments("@/nowhere/body", &["--secret-file", "/nowhere/secret"]), "/nowhere/secret"),
        (vec!["verify", "--body", "x", "--header", "no colon", "--secret-file", "/dev/null"], "bytes"),
    ] {
        let (code, stdout, stderr) = told(&run(&command));
        assert_eq!((code, stdout.as_str()), (2, ""), "{command:?}: {stderr}");
        assert!(stderr.contains(advice), "{command:?}: {stderr}");
    }
}
