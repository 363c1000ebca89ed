//! The program itself, as a container runs it: its environment, its files, a socket and signals.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    convert::Infallible,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use protocol::pod::{Digest, ImageRef, Pod};

const KEY: &str = "a key of more than thirty-two bytes, for tests";

/// The program with its files in `folder`.
fn program(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guestbook"));
    command
        .env_clear()
        .env("DB_FILE", folder.join("book.db"))
        .env("SESSION_KEY_FILE", folder.join("session_key"))
        .env("PORT", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The program, serving.
struct Guestbook {
    child: Child,
    /// What it says when it listens.
    greeting: String,
    port: u16,
}

impl Guestbook {
    fn start(folder: &Path) -> Self {
        std::fs::write(folder.join("session_key"), KEY).unwrap();
        let mut child = program(folder).spawn().unwrap();
        let mut greeting = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
        let (_, port) = greeting.trim_end().rsplit_once(':').expect("it says where it listens");
        let port = port.parse().unwrap();
        Self { child, greeting, port }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(&self, path: &str) -> String {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))
    }

    fn sign(&self, cookie: &str, form: &str) -> String {
        let len = form.len();
        self.ask(&format!(
            "POST /sign HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncookie: {cookie}\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: {len}\r\n\r\n{form}"
        ))
    }

    /// The cookie and the token that a visitor gets.
    fn visit(&self) -> (String, String) {
        let page = self.get("/");
        let cookie = between(&page, "set-cookie: ", ";");
        (cookie, between(&page, "name=\"token\" value=\"", "\""))
    }

    fn stop(mut self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Guestbook {
    fn drop(&mut self) {
        // It is gone already where the test has stopped it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn between(text: &str, start: &str, end: &str) -> String {
    let rest = text.split_once(start).unwrap_or_else(|| panic!("no {start:?} in {text}")).1;
    rest.split_once(end).unwrap().0.to_owned()
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn it_does_not_start_without_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let refused = refusal(&program(folder.path()).output().unwrap());
    assert!(refused.contains("the secret session_key is missing"), "{refused}");
    assert!(!folder.path().join("book.db").exists());
}

#[test]
fn it_says_what_is_wrong_with_its_settings() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("session_key"), KEY).unwrap();
    let refused = refusal(&program(folder.path()).env("PORT", "70000").output().unwrap());
    assert!(refused.contains("PORT: 70000 is not a port"), "{refused}");
    let gone = folder.path().join("gone/book.db");
    let refused = refusal(&program(folder.path()).env("DB_FILE", gone).output().unwrap());
    assert!(refused.contains("gone/book.db cannot be opened"), "{refused}");
    let refused = refusal(&program(folder.path()).arg("serve").output().unwrap());
    assert!(refused.contains("usage"), "{refused}");
}

#[test]
fn entries_outlive_it() {
    let folder = tempfile::tempdir().unwrap();
    let book = Guestbook::start(folder.path());
    assert!(book.greeting.contains(" 0 entries"), "{}", book.greeting);
    let (cookie, token) = book.visit();
    let form = format!("name=Ada+%3Cb%3E&text=Fair+winds%0D%0A%26+more&token={token}");
    let answer = book.sign(&cookie, &form);
    assert!(answer.starts_with("HTTP/1.1 303") && answer.contains("location: /\r\n"), "{answer}");
    book.stop(Signal::SIGTERM);

    let book = Guestbook::start(folder.path());
    assert!(book.greeting.contains(" 1 entries"), "{}", book.greeting);
    let page = book.get("/");
    assert!(page.contains("Ada &lt;b&gt;") && page.contains("Fair winds\n&amp; more"), "{page}");
    let json = book.get("/api/entries");
    assert!(json.contains(r#""name":"Ada <b>","text":"Fair winds\n& more"}]"#), "{json}");
    assert!(json.contains("application/json"), "{json}");
    // The key is the same, so a form that was open meanwhile is still good.
    assert!(book.sign(&cookie, &form).starts_with("HTTP/1.1 303"));
    book.stop(Signal::SIGINT);
}

#[test]
fn forms_of_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let book = Guestbook::start(folder.path());
    let (cookie, token) = book.visit();
    let (other, _) = book.visit();
    let long = "a".repeat(501);
    let huge = "a".repeat(17 << 10);
    for (cookie, form, status) in [
        ("a=b", format!("name=a&text=b&token={token}"), "403"),
        (&other, format!("name=a&text=b&token={token}"), "403"),
        (&cookie, "name=a&text=b&token=1.00".into(), "403"),
        (&cookie, format!("name=a&text=&token={token}"), "400"),
        (&cookie, format!("name=a&text={long}&token={token}"), "400"),
        (&cookie, format!("name=a&token={token}"), "422"),
        (&cookie, format!("name=a&text={huge}&token={token}"), "413"),
    ] {
        let answer = book.sign(cookie, &form);
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
    }
    assert!(book.get("/api/entries").ends_with("\r\n\r\n[]"));
    assert!(std::fs::read(folder.path().join("book.db")).unwrap().is_empty());
}

#[test]
fn browsers_are_told_to_run_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let book = Guestbook::start(folder.path());
    for path in ["/", "/style.css", "/api/entries", "/nowhere"] {
        let answer = book.get(path);
        assert!(answer.contains("content-security-policy: default-src 'none'"), "{answer}");
    }
    assert!(book.get("/").contains("HttpOnly; SameSite=Lax"));
    assert!(book.get("/nowhere").starts_with("HTTP/1.1 404"));
}

#[test]
fn health_is_whether_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let book = Guestbook::start(folder.path());
    let port = book.port.to_string();
    let health = || program(folder.path()).arg("health").env("PORT", &port).output().unwrap();
    assert!(health().status.success());
    book.stop(Signal::SIGTERM);
    let refused = refusal(&health());
    assert!(refused.contains(&format!("nothing listens on port {port}")), "{refused}");
}

#[test]
fn its_compose_file_is_a_pod() {
    let parsed = Pod::from_compose(include_str!("../compose.yaml"), &()).unwrap();
    assert_eq!(parsed.notes(), [""; 0]);
    let id: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    let pushed = ImageRef::Pushed { id };
    let pod = parsed.resolve(|_service, _image| Ok::<_, Infallible>(pushed.clone())).unwrap();
    let json = String::from_utf8(pod.canonical()).unwrap();
    for part in [
        r#""guestbook.localhost":{"port":8080,"service":"web"}"#,
        r#""exec":["/app","health"]"#,
        r#""/run/secrets/session_key":"#,
        r#""/data":{"source":"book"}"#,
    ] {
        assert!(json.contains(part), "{part}: {json}");
    }
}
