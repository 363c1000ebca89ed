//! A pod's program that tells what the pod can reach. It is built by the tests, static, out of nothing but the standard
//! library, and is all that its image has.
//!
//! `probe serve PORT [closed]` answers HTTP: `/healthz` says whether it is well, which one that starts `closed` is from
//! `/open` on; `/connect/IP/PORT` says whether a connection comes about; `/end/CODE` ends it. `probe health PORT` is its
//! health check. `probe end CODE` ends at once. `probe cat` writes what it reads, `probe say OUT ERR` both of these,
//! `probe terminal` what it has for one, and `probe wait` ends when it is told to.

use std::{
    io::{IsTerminal, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

static WELL: AtomicBool = AtomicBool::new(true);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", port] => serve(port),
        ["serve", port, "closed"] => {
            WELL.store(false, Ordering::Relaxed);
            serve(port)
        }
        ["health", port] => health(port),
        ["end", code] => code.parse().map_or(ExitCode::FAILURE, |code: u8| ExitCode::from(code)),
        ["cat"] => {
            let copied = std::io::copy(&mut std::io::stdin(), &mut std::io::stdout());
            copied.map_or(ExitCode::FAILURE, |_| ExitCode::SUCCESS)
        }
        ["say", out, err] => {
            println!("{out}");
            eprintln!("{err}");
            ExitCode::SUCCESS
        }
        ["terminal"] => {
            let has = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
            // A terminal may carry any byte.
            println!("\x01\x02 {}", if has { "a terminal" } else { "no terminal" });
            ExitCode::SUCCESS
        }
        ["wait"] => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        _ => ExitCode::from(2),
    }
}

fn serve(port: &str) -> ExitCode {
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    println!("probe: listening on {port}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
    ExitCode::SUCCESS
}

fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(read) if read > 0 && head.len() < 16 << 10 => head.extend_from_slice(&part[..read]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    println!("probe: {path}");
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let (status, body) = match parts[..] {
        ["healthz"] if !WELL.load(Ordering::Relaxed) => {
            ("503 Service Unavailable", "not yet".into())
        }
        ["healthz"] => ("200 OK", "well".into()),
        ["open"] => {
            WELL.store(true, Ordering::Relaxed);
            ("200 OK", "open".into())
        }
        ["end", code] => std::process::exit(code.parse().unwrap_or(1)),
        ["connect", ip, port] => ("200 OK", connect(ip, port)),
        _ => ("200 OK", "probe".to_owned()),
    };
    let length = body.len();
    let _gone = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

fn connect(ip: &str, port: &str) -> String {
    let Ok(address) = format!("{ip}:{port}").parse::<SocketAddr>() else {
        return "no address".into();
    };
    match TcpStream::connect_timeout(&address, Duration::from_millis(1_500)) {
        Ok(_) => "connected".into(),
        Err(err) => format!("refused: {err}"),
    }
}

fn health(port: &str) -> ExitCode {
    let Ok(mut stream) = TcpStream::connect(format!("127.0.0.1:{port}")) else {
        return ExitCode::FAILURE;
    };
    let mut status = [0; 12];
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n");
    match asked.and_then(|()| stream.read_exact(&mut status)) {
        Ok(()) if status.ends_with(b" 200") => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
