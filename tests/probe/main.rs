//! A pod's program that tells what the pod can reach. It is built by the tests, static, out of nothing but the standard
//! library, and is all that its image has.
//!
//! `probe serve PORT [closed]` answers HTTP: `/healthz` says whether it is well, which one that starts `closed` is from
//! `/open` on; `/slow` says the second half of its answer once `/go` was asked for; `/upgrade` becomes an echo;
//! `/connect/IP/PORT` says whether a connection comes about; `/head` is what it was asked; `/self` is its host name, `/resolver` how it resolves names; `/end/CODE` ends it. `probe health
//! PORT` is its health check. `probe echo PORT WORD` sends back what comes by TCP or UDP, after the word. `probe grpc PORT` is an
//! echo over HTTP/2 without TLS, with trailers. `probe end CODE` ends at once. `probe cat` writes what it reads, `probe say OUT
//! ERR` both of these, `probe terminal` what it has for one, and `probe wait` ends when it is told to.
//!
//! `probe escape` tells which ways out of a container it found; `/escape`, `/kernel`, `/fill/MIB/PATH`, `/fork/MOST`, `/memory`,
//! `/user/PROGRAM`, `/read/PATH`, `/resolve/NAME`, `/send/IP/PORT` and `/upload/IP/PORT/MIB` do the same, one by one.
//!
//! As an add-on: `/ask/TOKEN/PATH` and `probe ask TOKEN PATH [BODY]` ask the provider, with that token, with its `own`, or with
//! `none`, and pass a body on; `/flood/COUNT/PATH` asks so often, and says how often it was told to wait. `probe bid` is a
//! strategy that bids the list price. Started as Prometheus would be, it serves port 9090; as the bidder would be, it waits.

mod escape;

use std::{
    io::{IsTerminal, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

static WELL: AtomicBool = AtomicBool::new(true);
static GO: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["serve", port] => serve(port),
        ["serve", port, "closed"] => {
            WELL.store(false, Ordering::Relaxed);
            serve(port)
        }
        // What it is told as Prometheus.
        [first, ..] if first.starts_with("--config.file=") => serve("9090"),
        // What it is told as the bidder.
        ["provider", "bidder", ..] => wait(),
        ["bid"] => bid(),
        ["ask", token, path] => told(&ask(token, path, b"")),
        ["ask", token, path, body] => told(&ask(token, path, body.as_bytes())),
        ["health", port] => health(port),
        ["grpc", port] => grpc(port),
        ["echo", port, word] => echo(port, word.to_owned()),
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
        ["escape"] => {
            print!("{}", escape::report());
            ExitCode::SUCCESS
        }
        ["take"] => {
            escape::take();
            ExitCode::SUCCESS
        }
        ["whoami"] => {
            escape::whoami();
            ExitCode::SUCCESS
        }
        ["wait"] => wait(),
        _ => ExitCode::from(2),
    }
}

fn wait() -> ExitCode {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn bid() -> ExitCode {
    let mut order = String::new();
    let read = std::io::stdin().read_line(&mut order);
    let price = order.split("\"listPrice\":\"").nth(1).and_then(|rest| rest.split('"').next());
    match (read, price) {
        (Ok(_), Some(price)) => told(&format!("{{\"bid\":\"{price}\"}}\n")),
        (_, _) => ExitCode::FAILURE,
    }
}

fn told(words: &str) -> ExitCode {
    print!("{words}");
    ExitCode::SUCCESS
}

fn serve(port: &str) -> ExitCode {
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    println!("probe: listening on {port}");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || answer(stream));
    }
    ExitCode::SUCCESS
}

fn echo(port: &str, word: String) -> ExitCode {
    let socket = UdpSocket::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    let datagram_word = word.clone();
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, sender)) = socket.recv_from(&mut datagram) {
            let answer = [datagram_word.as_bytes(), &datagram[..length]].concat();
            let _gone = socket.send_to(&answer, sender);
        }
    });
    for mut stream in listener.incoming().flatten() {
        let word = word.clone();
        std::thread::spawn(move || {
            let mut part = [0; 2048];
            while let Ok(length @ 1..) = stream.read(&mut part) {
                let answer = [word.as_bytes(), &part[..length]].concat();
                if stream.write_all(&answer).is_err() {
                    return;
                }
            }
        });
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
    let end = head.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
    let mut body = head.split_off(end);
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| {
        line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
    });
    while body.len() < length.unwrap_or(0).min(1 << 20) {
        match stream.read(&mut part) {
            Ok(read) if read > 0 => body.extend_from_slice(&part[..read]),
            _ => return,
        }
    }
    let path = head.split(' ').nth(1).unwrap_or_default();
    println!("probe: {path}");
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    if let ["slow" | "upgrade"] = parts[..] {
        let _gone = if parts[0] == "slow" { slow(stream) } else { upgrade(stream) };
        return;
    }
    let (status, body) = match parts[..] {
        ["healthz"] if !WELL.load(Ordering::Relaxed) => {
            ("503 Service Unavailable", "not yet".into())
        }
        ["healthz"] => ("200 OK", "well".into()),
        ["open"] => {
            WELL.store(true, Ordering::Relaxed);
            ("200 OK", "open".into())
        }
        ["go"] => {
            GO.store(true, Ordering::Relaxed);
            ("200 OK", "going".into())
        }
        ["end", code] => std::process::exit(code.parse().unwrap_or(1)),
        ["ask", token, ref path @ ..] => ("200 OK", ask(token, &path.join("/"), &body)),
        ["head"] => ("200 OK", head.clone()),
        ["self"] => ("200 OK", std::fs::read_to_string("/etc/hostname").unwrap_or_default()),
        ["resolver"] => ("200 OK", std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()),
        ["flood", count, ref path @ ..] => {
            let count = count.parse().unwrap_or(0);
            let asked = (0..count).map(|_| ask("own", &path.join("/"), b""));
            let refused = asked.filter(|said: &String| said.starts_with("HTTP/1.1 429"));
            ("200 OK", refused.count().to_string())
        }
        ["connect", ip, port] => ("200 OK", connect(ip, port)),
        ["escape"] => ("200 OK", escape::apart()),
        ["fill", most, ..] => {
            let path = parts[2..].join("/");
            ("200 OK", escape::fill(&format!("/{path}"), most.parse().unwrap_or_default()))
        }
        ["fork", most] => ("200 OK", escape::fork(most.parse().unwrap_or_default())),
        ["memory"] => ("200 OK", escape::memory()),
        ["kernel"] => {
            ("200 OK", std::fs::read_to_string("/proc/version").unwrap_or_default())
        }
        ["user", program] => ("200 OK", escape::set_user(&format!("/{program}"))),
        ["read", ref path @ ..] => {
            let read = std::fs::read_to_string(format!("/{}", path.join("/")));
            ("200 OK", read.unwrap_or_else(|err| format!("could not: {err}")))
        }
        ["resolve", name] => ("200 OK", escape::resolve(name)),
        ["send", ip, port] => ("200 OK", escape::send(ip, port)),
        ["upload", ip, port, mib] => ("200 OK", escape::upload(ip, port, mib)),
        _ => ("200 OK", "probe".to_owned()),
    };
    let length = body.len();
    let _gone = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// Says half of its answer, and the rest when it is told to.
fn slow(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
    while !GO.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n")
}

fn upgrade(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")?;
    let mut back = stream.try_clone()?;
    std::io::copy(&mut stream, &mut back).map(drop)
}

fn grpc(port: &str) -> ExitCode {
    let listener = TcpListener::bind(format!("0.0.0.0:{port}")).expect("the port is free");
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || http2(stream));
    }
    ExitCode::SUCCESS
}

/// As much of HTTP/2 as an echo needs: the head at once, each part as it comes, trailers in the end.
fn http2(mut stream: TcpStream) -> std::io::Result<()> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const END_STREAM: u8 = 1;
    const ACK: u8 = 1;
    const END_HEADERS: u8 = 4;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    let mut send = stream.try_clone()?;
    let mut frame = move |kind: u8, flags: u8, id: [u8; 4], payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
        send.write_all(&[&length[1..], &[kind, flags], &id, payload].concat())
    };
    frame(SETTINGS, 0, [0; 4], &[])?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload)?;
        match kind {
            SETTINGS if flags & ACK == 0 => frame(SETTINGS, ACK, [0; 4], &[])?,
            PING if flags & ACK == 0 => frame(PING, ACK, [0; 4], &payload)?,
            // Status 200, from the static table.
            HEADERS => frame(HEADERS, END_HEADERS, id, &[0x88])?,
            DATA if !payload.is_empty() => frame(DATA, 0, id, &payload)?,
            _ => (),
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            let trailers = b"\x00\x0bgrpc-status\x010";
            frame(HEADERS, END_HEADERS | END_STREAM, id, trailers)?;
        }
    }
}

fn ask(token: &str, path: &str, body: &[u8]) -> String {
    let own = || std::fs::read_to_string("/run/secrets/token").unwrap_or_default();
    let shown = match token {
        "none" => String::new(),
        "own" => format!("Authorization: Bearer {}\r\n", own().trim()),
        other => format!("Authorization: Bearer {other}\r\n"),
    };
    let method = if body.is_empty() { "GET" } else { "POST" };
    let length = body.len();
    let head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{shown}Connection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    let asked = || {
        let mut stream = TcpStream::connect("127.0.0.1:9640")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    asked().unwrap_or_else(|err| format!("no answer: {err}"))
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
