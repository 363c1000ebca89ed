//! Known ways out of a container. Each is tried for real, and as far as it does no harm where it succeeds: what would is
//! asked for in a way that the kernel refuses too, but only after it has looked at who asks.

use std::{
    ffi::{c_char, c_int, c_long, c_void},
    fs::{self, OpenOptions},
    io::{self, Write},
    net::UdpSocket,
    process::Command,
    ptr::null,
    time::Duration,
};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: u64,
        data: *const c_void,
    ) -> c_int;
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn unshare(flags: c_int) -> c_int;
    fn mknod(path: *const c_char, mode: u32, device: u64) -> c_int;
    fn chroot(path: *const c_char) -> c_int;
    fn sethostname(name: *const c_char, length: usize) -> c_int;
    fn geteuid() -> u32;
}

/// What the kernel says to those whom it does not let, or what it has not: everything else counts as a success.
const REFUSALS: [i32; 10] = [1, 2, 6, 13, 19, 20, 22, 30, 38, 95];

/// As above, where the arguments would be refused as well, of those who may.
const STRICT: [i32; 8] = [1, 2, 6, 13, 19, 30, 38, 95];

type Try = (&'static str, fn() -> Result<String, String>);

/// All of them; `could not` or `could`, and why.
pub(crate) fn report() -> String {
    let mut lines = String::new();
    for (name, attempt) in TRIES {
        let line = match attempt() {
            Ok(what) => format!("{name}: could: {what}\n"),
            Err(why) => format!("{name}: could not: {why}\n"),
        };
        lines.push_str(&line);
    }
    lines
}

/// The same, in a process of its own: what succeeds changes who tries.
pub(crate) fn apart() -> String {
    match Command::new("/proc/self/exe").arg("escape").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(err) => format!("nothing is tried: {err}"),
    }
}

const TRIES: &[Try] = &[
    ("mount a file system", || of(unsafe { mount(c"none".as_ptr(), c"/mnt".as_ptr(), c"tmpfs".as_ptr(), 0, null()) }.into(), &REFUSALS)),
    ("mount a control group", || of(unsafe { mount(c"none".as_ptr(), c"/mnt".as_ptr(), c"cgroup2".as_ptr(), 0, null()) }.into(), &REFUSALS)),
    ("remount /proc/sys for writing", || of(unsafe { mount(null(), c"/proc/sys".as_ptr(), null(), 32 | 4096, null()) }.into(), &REFUSALS)),
    ("make a device", || {
        let made = of(unsafe { mknod(c"/escape-disk".as_ptr(), 0o060_600, 0x800) }.into(), &REFUSALS);
        let _none = fs::remove_file("/escape-disk");
        made
    }),
    ("open a raw socket", || of(unsafe { socket(2, 3, 1) }.into(), &REFUSALS)),
    ("open a packet socket", || of(unsafe { socket(17, 3, 0x300) }.into(), &REFUSALS)),
    ("have a user namespace", || of(unsafe { unshare(0x1000_0000) }.into(), &REFUSALS)),
    ("have a mount namespace", || of(unsafe { unshare(0x2_0000) }.into(), &REFUSALS)),
    ("leave its root", || of(unsafe { chroot(c"/".as_ptr()) }.into(), &REFUSALS)),
    ("set the host name", || of(unsafe { sethostname(c"x".as_ptr(), 1) }.into(), &REFUSALS)),
    // In the order of the numbers of x86-64.
    ("read the kernel's log", || call(103, [3, 0, 0, 0], &STRICT)),
    ("change its root's mount", || call(155, [0, 0, 0, 0], &STRICT)),
    ("account for processes", || call(163, [0, 0, 0, 0], &STRICT)),
    ("swap", || call(167, [0, 0, 0, 0], &STRICT)),
    ("restart the machine", || call(169, [1, 2, 3, 0], &STRICT)),
    ("load a module", || call(175, [0, 0, 0, 0], &STRICT)),
    ("remove a module", || call(176, [0, 0, 0, 0], &STRICT)),
    ("set quotas", || call(179, [0, 0, 0, 0], &STRICT)),
    ("set the clock", set_clock),
    ("load another kernel", || call(246, [0, 0, 0, 0], &STRICT)),
    ("use the kernel's keys", || call(250, [0, 0xffff_fffd, 1, 0], &STRICT)),
    ("watch the processor", || call(298, [0, 0, 0, 0], &STRICT)),
    ("open a file by its number", || call(304, [0, 0, 0, 0], &STRICT)),
    ("enter a namespace", || call(308, [0, 0, 0, 0], &STRICT)),
    ("load a program into the kernel", || call(321, [0, 0, 0, 0], &STRICT)),
    ("handle page faults", || call(323, [0, 0, 0, 0], &STRICT)),
    ("read the machine's memory", || read("/proc/kcore")),
    ("read physical memory", || read("/dev/mem")),
    ("read the kernel's messages", || read("/dev/kmsg")),
    ("read the machine's disk", || read("/dev/vda").or_else(|_| read("/dev/sda"))),
    ("read the machine's keys", || read("/proc/keys")),
    ("name a program for crashes", || write("/proc/sys/kernel/core_pattern")),
    ("name a program for modules", || write("/proc/sys/kernel/modprobe")),
    ("name a program for devices", || write("/sys/kernel/uevent_helper")),
    ("press a magic key", || write("/proc/sysrq-trigger")),
    ("name a program for control groups", release_agent),
    ("widen its own limits", limits),
    ("talk to Docker", || exists(&["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock"])),
    ("see processes of others", processes),
    ("find a file left open", open_files),
    ("have a capability", capabilities),
    ("write where names are", || write("/etc/hosts").or_else(|_| write("/etc/resolv.conf")).or_else(|_| write("/etc/hostname"))),
    ("speak IPv6 with the machine", six),
];

fn of(result: c_long, refusals: &[i32]) -> Result<String, String> {
    let err = io::Error::last_os_error();
    match result {
        -1 if refusals.contains(&err.raw_os_error().unwrap_or_default()) => Err(err.to_string()),
        -1 => Ok(format!("it is let: {err}")),
        _ => Ok("it is done".into()),
    }
}

fn call(number: c_long, args: [u64; 4], refusals: &[i32]) -> Result<String, String> {
    of(unsafe { syscall(number, args[0], args[1], args[2], args[3]) }, refusals)
}

/// To what it is.
fn set_clock() -> Result<String, String> {
    let mut now = [0_i64; 2];
    let now = now.as_mut_ptr();
    unsafe { syscall(228, 0, now) };
    of(unsafe { syscall(227, 0, now) }, &STRICT)
}

fn read(path: &str) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|err| err.to_string())?;
    let mut bytes = [0; 64];
    match io::Read::read(&mut &file, &mut bytes) {
        Ok(0) => Err("there is nothing in it".into()),
        Ok(read) => Ok(format!("it has {read} bytes")),
        Err(err) => Err(err.to_string()),
    }
}

/// Opened and left alone.
fn write(path: &str) -> Result<String, String> {
    match OpenOptions::new().write(true).open(path) {
        Ok(_) => Ok(format!("{path} is open for writing")),
        Err(err) => Err(err.to_string()),
    }
}

fn exists(paths: &[&str]) -> Result<String, String> {
    let found = paths.iter().find(|path| fs::metadata(path).is_ok());
    found.map(|path| format!("{path} is there")).ok_or_else(|| "there is no socket".into())
}

fn groups(name: &str) -> Vec<String> {
    let controllers = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let mut paths: Vec<String> =
        controllers.map(|entry| entry.path().join(name).display().to_string()).collect();
    paths.push(format!("/sys/fs/cgroup/{name}"));
    paths
}

fn release_agent() -> Result<String, String> {
    let tries = groups("release_agent").into_iter().map(|path| write(&path));
    tries.fold(Err("there is none".into()), Result::or)
}

fn limits() -> Result<String, String> {
    let names = ["memory.limit_in_bytes", "memory.max", "pids.max", "cpu.max", "devices.allow", "cgroup.procs"];
    let tries = names.iter().flat_map(|name| groups(name)).map(|path| write(&path));
    tries.fold(Err("there is no group".into()), Result::or)
}

/// All that are seen are this program.
fn processes() -> Result<String, String> {
    let own = fs::read_link("/proc/self/exe").map_err(|err| err.to_string())?;
    for entry in fs::read_dir("/proc").map_err(|err| err.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_err() {
            continue;
        }
        let others = || {
            let comm = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let exe = fs::read_link(entry.path().join("exe"));
            (exe.map_or(true, |exe| exe != own) && !comm.is_empty()).then_some(comm)
        };
        // A health check of its own is the engine's program for a moment, before it is this one.
        if others().is_some() {
            std::thread::sleep(std::time::Duration::from_secs(1));
            if let Some(comm) = others() {
                return Ok(format!("process {name} is {}", comm.trim()));
            }
        }
    }
    Err("all that are there are its own".into())
}

/// A folder that is open leads out of the container, wherever it is.
fn open_files() -> Result<String, String> {
    for entry in fs::read_dir("/proc/self/fd").map_err(|err| err.to_string())?.flatten() {
        let to = fs::read_link(entry.path()).unwrap_or_default();
        let to = to.display().to_string();
        let own = ["socket:", "pipe:", "anon_inode:", "/dev/null", "/dev/pts", "/proc/"];
        if !own.iter().any(|own| to.starts_with(own)) && !to.is_empty() {
            return Ok(format!("{} is {to}", entry.path().display()));
        }
    }
    Err("nothing but its own is open".into())
}

fn capabilities() -> Result<String, String> {
    let status = fs::read_to_string("/proc/self/status").map_err(|err| err.to_string())?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("", |line| line.trim()).to_owned()
    };
    for name in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        let value = field(name);
        if !value.bytes().all(|byte| byte == b'0') || value.is_empty() {
            return Ok(format!("{name} {value}"));
        }
    }
    match (field("NoNewPrivs:").as_str(), field("Seccomp:").as_str()) {
        ("1", "2") => Err("it has none, may get none, and its calls are filtered".into()),
        (new, filtered) => Ok(format!("NoNewPrivs: {new}, Seccomp: {filtered}")),
    }
}

/// An address of its own on a network is where it begins.
fn six() -> Result<String, String> {
    let addresses = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    match addresses.lines().find(|line| !line.ends_with(" lo")) {
        Some(line) => Ok(line.to_owned()),
        None => Err("it has no address".into()),
    }
}

/// Writes to `path` until something stops it, or `most` MiB are written; how much that was.
pub(crate) fn fill(path: &str, most: usize) -> String {
    let file = format!("{path}/fill");
    let target = if fs::metadata(path).is_ok_and(|meta| meta.is_dir()) { &file } else { path };
    let opened = OpenOptions::new().create(true).append(true).open(target);
    let mut opened = match opened {
        Ok(opened) => opened,
        Err(err) => return format!("0 MiB: {err}"),
    };
    let part = vec![1; 1 << 20];
    let mut written = 0;
    let said = loop {
        if written == most {
            break "nothing stopped it".to_owned();
        }
        if let Err(err) = opened.write_all(&part) {
            break err.to_string();
        }
        written += 1;
    };
    let _synced = opened.sync_all();
    drop(opened);
    let _gone = fs::remove_file(target);
    format!("{written} MiB: {said}")
}

/// Starts processes that wait until no more can be had, or `most` of them; how many that were.
pub(crate) fn fork(most: usize) -> String {
    let mut children = Vec::new();
    let said = loop {
        if children.len() == most {
            break "nothing stopped it".to_owned();
        }
        match Command::new("/proc/self/exe").arg("wait").spawn() {
            Ok(child) => children.push(child),
            Err(err) => break err.to_string(),
        }
    };
    let count = children.len();
    for mut child in children {
        let _ended = child.kill().and_then(|()| child.wait());
    }
    format!("{count}: {said}")
}

/// Has another process take memory without end; what became of it.
pub(crate) fn memory() -> String {
    match Command::new("/proc/self/exe").arg("take").status() {
        Ok(status) => status.to_string(),
        Err(err) => err.to_string(),
    }
}

/// Takes memory, 1 TiB at most.
pub(crate) fn take() {
    let mut all = Vec::new();
    for _ in 0..1 << 16 {
        all.push(vec![1_u8; 16 << 20]);
    }
    println!("{}", all.len());
}

/// Who a program of the image runs as that belongs to root and is to run as root.
pub(crate) fn set_user(program: &str) -> String {
    match Command::new(program).arg("whoami").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(err) => err.to_string(),
    }
}

pub(crate) fn whoami() {
    println!("{}", unsafe { geteuid() });
}

/// Whether the pod's own name server knows a name; in how many answers.
pub(crate) fn resolve(name: &str) -> String {
    let asked = || -> io::Result<String> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.connect("127.0.0.11:53")?;
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap_or_default());
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        socket.send(&query)?;
        let mut answer = [0; 512];
        let read = socket.recv(&mut answer)?;
        Ok(match read >= 12 && answer[3] & 15 == 0 && answer[7] > 0 {
            true => format!("{} answers", answer[7]),
            false => format!("no answer: code {}", answer[3] & 15),
        })
    };
    asked().unwrap_or_else(|err| format!("no answer: {err}"))
}

/// Sends a datagram; whether it went out.
pub(crate) fn send(ip: &str, port: &str) -> String {
    let sent = UdpSocket::bind("0.0.0.0:0").and_then(|s| s.send_to(b"escape", format!("{ip}:{port}")));
    sent.map_or_else(|err| format!("refused: {err}"), |_| "sent".into())
}

/// Sends `mib` MiB to who listens; how long that took in milliseconds, and what became of it.
pub(crate) fn upload(ip: &str, port: &str, mib: &str) -> String {
    let begun = std::time::Instant::now();
    let sent = || -> io::Result<usize> {
        let mut stream = std::net::TcpStream::connect_timeout(
            &format!("{ip}:{port}").parse().map_err(io::Error::other)?,
            Duration::from_secs(5),
        )?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let part = vec![1; 64 << 10];
        let parts = mib.parse::<usize>().unwrap_or_default() * 16;
        for _ in 0..parts {
            stream.write_all(&part)?;
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        // Until the other side has read all of it.
        io::copy(&mut stream, &mut io::sink())?;
        Ok(parts)
    };
    match sent() {
        Ok(_) => format!("sent in {}", begun.elapsed().as_millis()),
        Err(err) => format!("refused: {err}"),
    }
}

