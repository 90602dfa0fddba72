//! The queue's URL: what the broker's client reads, and the certificates that it names.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use dispatcher::process::Failure;
use dispatcher::queue::rabbitmq::RabbitConfig;
use dispatcher_core::limits::CERTIFICATE_FILE_BYTES_MAX;
use dispatcher_core::redacted::Redacted;
use url::Url;

/// Parameters that name files, by the names that RabbitMQ's own clients use.
const FILES: [&str; 3] = ["cacertfile", "certfile", "keyfile"];
/// Parameters that the client library reads.
const PARAMETERS: [&str; 5] = ["heartbeat", "connection_timeout", "channel_max", "frame_max", "auth_mechanism"];

/// Reads the URL and the files that it names. Errors name the parameter at fault, never a value.
pub(crate) fn read(url: &Redacted<String>) -> Result<RabbitConfig, Failure> {
    let wrong = |what: String| Failure::Configuration(format!("the queue's URL is wrong: {what}"));
    let mut parsed = Url::parse(url.expose())
        .map_err(|error| wrong(format!("{error}; it looks like amqp://USER:PASSWORD@HOST:PORT/VHOST")))?;
    if !matches!(parsed.scheme(), "amqp" | "amqps") {
        return Err(wrong("it does not begin with amqp:// or amqps://".to_owned()));
    }
    let (mut ca_certificates, mut certificate, mut key) = (None, None, None);
    let mut rest = Vec::new();
    for (name, value) in parsed.query_pairs() {
        match &*name {
            "cacertfile" => ca_certificates = Some(read_file("cacertfile", value.as_ref().as_ref())?),
            "certfile" => certificate = Some(read_file("certfile", value.as_ref().as_ref())?),
            "keyfile" => key = Some(Redacted::new(read_file("keyfile", value.as_ref().as_ref())?)),
            known if PARAMETERS.contains(&known) => rest.push((name.into_owned(), value.into_owned())),
            unknown => {
                let known = FILES.iter().chain(&PARAMETERS).copied().collect::<Vec<_>>().join(", ");
                return Err(wrong(format!("the parameter {unknown:?} is not known; there are {known}")));
            }
        }
    }
    if parsed.scheme() == "amqp" && (ca_certificates.is_some() || certificate.is_some() || key.is_some()) {
        return Err(wrong("certificates are for amqps://".to_owned()));
    }
    if certificate.is_some() != key.is_some() {
        return Err(wrong("certfile and keyfile belong together".to_owned()));
    }
    parsed.set_query(None);
    if !rest.is_empty() {
        parsed.query_pairs_mut().extend_pairs(rest);
    }
    Ok(RabbitConfig {
        ca_certificates_pem: ca_certificates,
        client_certificate_pem: certificate,
        client_key_pem: key.unwrap_or_default(),
        ..RabbitConfig::new(parsed.to_string())
    })
}

fn read_file(parameter: &str, path: &Path) -> Result<String, Failure> {
    let failed = |what: &str| {
        Failure::Configuration(format!("the queue's URL is wrong: {parameter}: {what}; it names a file in PEM"))
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|error| failed(&error.to_string()))?;
    file.take(CERTIFICATE_FILE_BYTES_MAX).read_to_string(&mut text).map_err(|error| failed(&error.to_string()))?;
    if !text.contains("-----BEGIN ") {
        return Err(failed("the file holds nothing of the kind"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_url_is_refused_without_a_word_of_its_password() {
        let folder = tempfile::tempdir().unwrap();
        let (pem, empty) = (folder.path().join("a.pem"), folder.path().join("empty"));
        std::fs::write(&pem, "-----BEGIN CERTIFICATE-----").unwrap();
        std::fs::write(&empty, "").unwrap();
        let (pem, empty) = (pem.display(), empty.display());
        for (url, what) in [
            ("u:s3cret".to_owned(), "amqp://"),
            ("http://u:s3cret@h".to_owned(), "does not begin with amqp://"),
            ("amqp://u:s3cret@h/v?cacert=s3cret".to_owned(), "\"cacert\""),
            (format!("amqp://u:s3cret@h/v?cacertfile={pem}"), "amqps://"),
            ("amqps://u:s3cret@h/v?cacertfile=/no/s3cret".to_owned(), "cacertfile: No such file"),
            ("amqps://u:p@h/v?keyfile=-----BEGIN%20KEY-----s3cret".to_owned(), "keyfile: No such file"),
            (format!("amqps://u:s3cret@h/v?cacertfile={empty}"), "holds nothing"),
            (format!("amqps://u:s3cret@h/v?certfile={pem}"), "belong together"),
        ] {
            let failure = read(&Redacted::new(url)).err().expect(what).to_string();
            assert!(failure.contains(what) && !failure.contains("s3cret"), "{failure}");
        }
    }

    #[test]
    fn files_are_read_and_the_rest_of_the_url_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        for name in ["ca", "cert", "key"] {
            std::fs::write(path(name), format!("-----BEGIN {name}-----")).unwrap();
        }
        let parameters =
            format!("cacertfile={}&heartbeat=7&certfile={}&keyfile={}", path("ca"), path("cert"), path("key"));
        let config = read(&Redacted::new(format!("amqps://u:p@h:1/%2f?{parameters}"))).unwrap();
        assert_eq!(config.url.expose(), "amqps://u:p@h:1/%2f?heartbeat=7");
        assert_eq!(config.ca_certificates_pem.as_deref(), Some("-----BEGIN ca-----"));
        assert_eq!(config.client_certificate_pem.as_deref(), Some("-----BEGIN cert-----"));
        assert_eq!(config.client_key_pem.expose(), "-----BEGIN key-----");
    }
}
