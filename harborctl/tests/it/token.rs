//! The token of a file goes with every request, as it stands there then.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;

use crate::support::{run, told};

/// A server that answers one request after the other with a problem, and tells each head.
fn server() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, heads) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                head.push(byte[0]);
            }
            let body = r#"{"type":"https://harborhook.dev/problems/unauthenticated","title":"No","detail":"no"}"#;
            let length = body.len();
            let answer =
                format!("HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).unwrap();
            sender.send(String::from_utf8(head).unwrap()).ok();
        }
    });
    (address, heads)
}

#[test]
fn every_command_sends_the_token_that_stands_in_the_file_then() {
    let (server, heads) = server();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let path = file.to_str().unwrap();
    let nobody = "019ab0c4-7d5e-7c21-9d0a-3f1b5a0c9e77";
    let commands: [&[&str]; 6] = [
        &["event", "publish", "--type", "a", "--data", "1"],
        &["event", "show", nobody],
        &["delivery", "replay", nobody],
        &["endpoint", "list"],
        &["subscription", "list"],
        &["route", "--type", "a", "--data", "1"],
    ];
    for (number, command) in commands.iter().enumerate() {
        std::fs::write(&file, format!("t0ken-{number}\n")).unwrap();
        let output = run(&[&["--server", &server, "--token-file", path], *command].concat());
        let head = heads.recv().unwrap();
        assert!(head.contains(&format!("authorization: Bearer t0ken-{number}\r\n")), "{command:?}: {head}");
        let (code, _, stderr) = told(&output);
        assert!(code == 4 && stderr.contains("is not accepted") && !stderr.contains("t0ken"), "{stderr}");
    }
    let (code, _, stderr) = told(&run(&["--server", &server, "endpoint", "list"]));
    assert!(!heads.recv().unwrap().contains("authorization"), "nobody asked for a token to be sent");
    assert!(code == 4 && stderr.contains("--token-file"), "{stderr}");
    std::fs::remove_file(&file).unwrap();
    let (code, _, stderr) = told(&run(&["--server", &server, "--token-file", path, "endpoint", "list"]));
    assert!(code == 2 && stderr.contains("No such file"), "{stderr}");
    assert!(heads.try_recv().is_err(), "nothing was sent");
}
