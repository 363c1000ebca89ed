//! `roadstead stats` and `roadstead top`: what services use.

use std::{
    collections::BTreeMap,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::provider::wire::ServiceStats;
use anyhow::{Context as _, ensure};
use crossterm::{
    cursor,
    event::{Event, KeyCode, KeyModifiers},
    execute, queue,
    style::Print,
    terminal,
};
use protocol::lease::State as LeaseState;
use tokio::task::JoinSet;

use crate::{
    cli::LeaseRef,
    client::Client,
    deploy, output,
    output::{causes, print, table, tame},
    publish,
    remote::Remote,
    session::Session,
    settings::Settings,
    show,
    state::State,
};

/// How often the view is drawn anew.
const DRAW: Duration = Duration::from_millis(500);

/// How long is waited before a provider that broke off is asked again.
const AGAIN: Duration = Duration::from_secs(3);

const HEADER: [&str; 8] =
    ["LEASE", "SERVICE", "CPU", "MEMORY", "NET IN / OUT", "DISK IN / OUT", "PIDS", "RESTARTS"];

/// What `roadstead stats` is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The lease's number, or the app's name
    lease: LeaseRef,
    /// Only this service
    #[arg(long, short, value_name = "NAME")]
    service: Option<String>,
    /// Go on, every second
    #[arg(long, short)]
    follow: bool,
}

/// `roadstead stats`.
pub(crate) async fn run(settings: &Settings, args: &Args) -> anyhow::Result<()> {
    let remote = Remote::find(settings, &args.lease).await?;
    let service = args.service.as_deref();
    let mut stats = remote.client.stats(remote.lease, service, args.follow).await?;
    if args.follow {
        while let Some(stats) = stats.next().await? {
            match settings.json {
                true => print(&serde_json::to_string(&stats)?)?,
                false => print(&row(remote.lease.to_string(), &stats).join("  "))?,
            }
        }
        return Ok(());
    }
    let mut all: Vec<ServiceStats> = Vec::new();
    while let Some(stats) = stats.next().await? {
        all.push(stats);
    }
    all.sort_by(|one, two| one.service.cmp(&two.service));
    output::show(settings.json, &all, || match all.is_empty() {
        true => format!("nothing of lease {} runs", remote.lease),
        false => table(&HEADER, all.iter().map(|stats| row(remote.lease.to_string(), stats))),
    })
}

fn row(lease: String, stats: &ServiceStats) -> Vec<String> {
    vec![
        lease,
        tame(&stats.service),
        format!("{} of {}", percent(stats.cpu), percent(stats.cpu_limit)),
        format!("{} of {}", bytes(stats.memory), bytes(stats.memory_limit)),
        format!("{} / {}", bytes(stats.received), bytes(stats.sent)),
        format!("{} / {}", bytes(stats.read), bytes(stats.written)),
        stats.pids.to_string(),
        stats.restarts.to_string(),
    ]
}

/// Thousandths of a processor, as a hundredth part of one: `12.5%`.
fn percent(thousandths: u64) -> String {
    match thousandths % 10 {
        0 => format!("{}%", thousandths / 10),
        tenth => format!("{}.{tenth}%", thousandths / 10),
    }
}

/// Three digits and a unit: `1.25 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = u128::from(bytes) * 100;
    let mut unit = 0;
    while size >= 1_024 * 100 && unit + 1 < units.len() {
        size /= 1_024;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or_default();
    let (whole, rest) = (size / 100, size % 100);
    match (unit, whole) {
        (0, _) | (_, 100..) => format!("{whole} {name}"),
        (_, 10..) => format!("{whole}.{} {name}", rest / 10),
        _ => format!("{whole}.{rest:02} {name}"),
    }
}

/// What is known of one lease.
#[derive(Debug, Clone, Default)]
struct Known {
    app: Option<String>,
    services: BTreeMap<String, ServiceStats>,
    trouble: Option<String>,
}

type Board = Arc<Mutex<BTreeMap<u64, Known>>>;

/// `roadstead top`.
pub(crate) async fn top(settings: &Settings) -> anyhow::Result<()> {
    use std::io::IsTerminal as _;
    ensure!(
        std::io::stdout().is_terminal() && !settings.json,
        "`roadstead top` draws on a terminal; `roadstead stats LEASE --follow --json` is for programs"
    );
    let session = publish::session(settings).await?;
    let board = Board::default();
    let mut watching = JoinSet::new();
    for (lease, client, app) in open(&session, settings).await? {
        lock(&board).insert(lease, Known { app, ..Known::default() });
        watching.spawn(watch(client, lease, Arc::clone(&board)));
    }
    ensure!(!watching.is_empty(), "nothing is deployed; `roadstead deploy` deploys something");
    let screen = Screen::open()?;
    let keys = keys();
    let outcome = tokio::select! {
        drawn = draw(&board) => drawn,
        () = keys => Ok(()),
        () = crate::interrupted() => Ok(()),
    };
    drop(screen);
    outcome
}

fn lock(board: &Board) -> std::sync::MutexGuard<'_, BTreeMap<u64, Known>> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The wallet's open leases.
async fn open(
    session: &Session,
    settings: &Settings,
) -> anyhow::Result<Vec<(u64, Client, Option<String>)>> {
    let (chain, state) =
        (session.chain(), State::read(&settings.home, session.chain().deployment())?);
    let head = chain.head().await?.number;
    let mut ids = Vec::new();
    for account in show::accounts(chain, session.wallet(), &state).await?.keys() {
        let from = chain.deployment().block;
        let openings = chain.openings(None, Some(*account), from, head).await?;
        ids.extend(openings.into_iter().map(|opening| opening.lease));
    }
    ids.sort_unstable();
    let mut open = Vec::new();
    for (id, view) in ids.iter().zip(chain.lease_views(&ids, None).await?) {
        let state_of = LeaseState::try_from(view.lease.state)?;
        if matches!(state_of, LeaseState::Pending | LeaseState::Active) {
            let (client, _listing) = deploy::provider_of(session, view.provider).await?;
            open.push((*id, client, state.app_of(*id).map(str::to_owned)));
        }
    }
    Ok(open)
}

/// Writes onto the board what the services of one lease use, again and again.
async fn watch(client: Client, lease: u64, board: Board) {
    loop {
        let watched = async {
            let mut stats = client.stats(lease, None, true).await?;
            while let Some(stats) = stats.next().await? {
                if let Some(known) = lock(&board).get_mut(&lease) {
                    known.trouble = None;
                    known.services.insert(stats.service.clone(), stats);
                }
            }
            anyhow::Ok(())
        };
        let trouble = match watched.await {
            Ok(()) => "nothing of it runs".to_owned(),
            Err(err) => causes(&err),
        };
        if let Some(known) = lock(&board).get_mut(&lease) {
            known.trouble = Some(trouble);
            known.services.clear();
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The terminal's other screen, until this is dropped.
pub(crate) struct Screen;

impl Screen {
    /// Takes the terminal over.
    pub(crate) fn open() -> anyhow::Result<Self> {
        terminal::enable_raw_mode().context("the terminal cannot be taken over")?;
        let screen = Self;
        execute!(std::io::stdout(), terminal::EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _stays = execute!(std::io::stdout(), cursor::Show, terminal::LeaveAlternateScreen);
        let _stays_raw = terminal::disable_raw_mode();
    }
}

async fn draw(board: &Board) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval(DRAW);
    loop {
        tick.tick().await;
        let text = view(&lock(board));
        paint(&text)?;
    }
}

/// Shows `text` on the screen in place of what is there.
pub(crate) fn paint(text: &str) -> anyhow::Result<()> {
    let (width, height) = terminal::size()?;
    let lines = text.lines().take(usize::from(height.saturating_sub(1)));
    let mut out = std::io::stdout().lock();
    queue!(out, cursor::MoveTo(0, 0))?;
    for line in lines {
        let line: String = line.chars().take(usize::from(width)).collect();
        let rest = terminal::Clear(terminal::ClearType::UntilNewLine);
        queue!(out, Print(line), rest, cursor::MoveToNextLine(1))?;
    }
    queue!(out, terminal::Clear(terminal::ClearType::FromCursorDown))?;
    Ok(out.flush()?)
}

fn view(board: &BTreeMap<u64, Known>) -> String {
    let mut rows = Vec::new();
    let mut troubles = Vec::new();
    for (lease, known) in board {
        let name = match &known.app {
            Some(app) => format!("{lease} {app}"),
            None => lease.to_string(),
        };
        for stats in known.services.values() {
            rows.push(row(name.clone(), stats));
        }
        match &known.trouble {
            Some(trouble) => troubles.push(format!("lease {name}: {}", tame(trouble))),
            None if known.services.is_empty() => troubles.push(format!("lease {name}: asking")),
            None => (),
        }
    }
    let mut text = format!("roadstead top: {} leases, q quits\n\n", board.len());
    if !rows.is_empty() {
        text.push_str(&table(&HEADER, rows));
        text.push('\n');
    }
    if !troubles.is_empty() {
        text.push('\n');
        text.push_str(&troubles.join("\n"));
    }
    text
}

/// Ends when somebody wants to leave. A thread of its own reads the keys, since nothing can interrupt that.
pub(crate) fn keys() -> impl Future<Output = ()> {
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        while let Ok(event) = crossterm::event::read() {
            let Event::Key(key) = event else { continue };
            let control_c =
                key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
            if control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                break;
            }
        }
        let _over_already = tell.send(());
    });
    async {
        let _gone = told.await;
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn sizes_read_well() {
        let check = |size: u64, shown: &str| assert_eq!(bytes(size), shown, "{size}");
        check(0, "0 B");
        check(1_023, "1023 B");
        check(1_024, "1.00 KiB");
        check(1_310_720, "1.25 MiB");
        check(64 << 20, "64.0 MiB");
        check(200 << 30, "200 GiB");
        assert_eq!(percent(125), "12.5%");
        assert_eq!(percent(1_000), "100%");
    }

    #[test]
    fn all_leases_are_on_one_view() {
        let stats = ServiceStats {
            service: "web".into(),
            time: "2026-01-31T12:00:00Z".into(),
            cpu: 125,
            cpu_limit: 500,
            memory: 20 << 20,
            memory_limit: 128 << 20,
            received: 2_048,
            sent: 100,
            read: 0,
            written: 4_096,
            pids: 3,
            restarts: 1,
        };
        let services = BTreeMap::from([("web".to_owned(), stats)]);
        let board = BTreeMap::from([
            (7, Known { app: Some("shop".into()), services, trouble: None }),
            (8, Known { trouble: Some("the provider does not answer".into()), ..Known::default() }),
            (9, Known::default()),
        ]);
        expect![[r#"
            roadstead top: 3 leases, q quits

            LEASE   SERVICE  CPU           MEMORY               NET IN / OUT      DISK IN / OUT   PIDS  RESTARTS
            7 shop  web      12.5% of 50%  20.0 MiB of 128 MiB  2.00 KiB / 100 B  0 B / 4.00 KiB  3     1

            lease 8: the provider does not answer
            lease 9: asking"#]]
        .assert_eq(&view(&board));
    }
}
