//! A program's terminal, byte for byte.
//!
//! Of a program with a terminal the engine sends the plain bytes. The client library looks into them for the frames that
//! other programs' output comes in, and waits in vain where they begin with a byte that one could begin with. So this one
//! request is made by hand.

use std::{
    io,
    path::{Path, PathBuf},
};

use bollard::errors::Error as DockerError;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

/// Where the engine usually listens.
pub(super) const DEFAULT: &str = "unix:///var/run/docker.sock";

/// The longest answer before the bytes of the terminal begin.
const MAX_HEAD: usize = 16 << 10;

/// Where the engine listens, if that is a socket of this machine.
pub(super) fn socket(host: &str) -> Option<PathBuf> {
    host.strip_prefix("unix://").map(PathBuf::from)
}

/// Starts the program `exec`; what it wrote already, and what carries the rest, both ways.
pub(super) async fn attach(
    socket: &Path,
    exec: &str,
) -> Result<(Vec<u8>, UnixStream), DockerError> {
    let mut stream = UnixStream::connect(socket).await?;
    let body = r#"{"Detach":false,"Tty":true}"#;
    let head = format!(
        "POST /exec/{exec}/start HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n\
         Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    let end = loop {
        if let Some(end) = end_of_head(&answer) {
            break end;
        }
        if answer.len() > MAX_HEAD || stream.read_buf(&mut answer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
    };
    let rest = answer.split_off(end);
    match status(&answer) {
        Some(101 | 200) => Ok((rest, stream)),
        status => Err(DockerError::DockerResponseServerError {
            status_code: status.unwrap_or_default(),
            message: words(&rest),
        }),
    }
}

fn end_of_head(answer: &[u8]) -> Option<usize> {
    answer.windows(4).position(|end| end == b"\r\n\r\n").map(|start| start + 4)
}

/// `HTTP/1.1 101 UPGRADED`
fn status(head: &[u8]) -> Option<u16> {
    let head = std::str::from_utf8(head).ok()?;
    head.split(' ').nth(1)?.parse().ok()
}

fn words(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let json = body.find('{').and_then(|start| body.get(start..=body.rfind('}')?));
    let said = json.and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok());
    said.and_then(|said| said["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| "the engine refuses".into())
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn answered(answer: &'static [u8]) -> Result<(Vec<u8>, UnixStream), DockerError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4_096];
            let read = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer).await.unwrap();
            String::from_utf8_lossy(&asked[..read]).into_owned()
        };
        let (attached, asked) = tokio::join!(attach(&path, "abc"), server);
        assert!(asked.starts_with("POST /exec/abc/start HTTP/1.1\r\n"), "{asked}");
        attached
    }

    #[tokio::test]
    async fn what_follows_the_answer_is_the_terminals() {
        let (rest, _) =
            answered(b"HTTP/1.1 101 UPGRADED\r\nA: b\r\n\r\n\x01\x02raw").await.unwrap();
        assert_eq!(rest, b"\x01\x02raw");
        let err = answered(b"HTTP/1.1 404 Not Found\r\n\r\n{\"message\":\"gone\"}").await;
        let Err(DockerError::DockerResponseServerError { status_code, message }) = err else {
            panic!("it is not refused");
        };
        assert_eq!((status_code, message.as_str()), (404, "gone"));
        assert!(answered(b"HTTP/1.1 101").await.is_err());
    }

    #[test]
    fn the_engine_is_where_it_is_said_to_be() {
        assert_eq!(socket(DEFAULT), Some("/var/run/docker.sock".into()));
        assert_eq!(socket("unix:///tmp/docker.sock"), Some("/tmp/docker.sock".into()));
        assert_eq!(socket("tcp://10.0.0.1:2375"), None);
    }
}
