//! Puts the parts of a provider together and keeps them running.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum_server::{Handle, tls_rustls::RustlsConfig};
use chain::{ReadError, Sender, abi::Registry, heads};
use edge::{Ingress, Routes};
use nix::{
    mount::{MsFlags, mount, umount},
    sys::statfs::{TMPFS_MAGIC, statfs},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Keys,
    addons::{self, Addon, Addons, bids::Bids},
    admin::{self, Site},
    answer,
    api::{Api, router},
    attest::Attester,
    blobs::Blobs,
    causes,
    certificates::HostCertificates,
    engine::{Engine, GpuError, Owner},
    facts::Fixed,
    firewall::{self, FirewallError},
    holds::Holds,
    house::{House, observe, pressure::raise_files},
    keep,
    keys::KeyError,
    leases::Follower,
    meter,
    pods::Pods,
    ports::Ports,
    quote::{Nonces, Quoter},
    reconcile::{Reconciler, Runs, Shared},
    records::Records,
    register::{RegisterError, adopt_prices, register},
    registry::Registries,
    session::Sessions,
    shown::Shown,
    slots::Slots,
    status::Statuses,
    unlock::Unlocks,
    visit::{Served, Visits},
    volumes::Volumes,
    wire,
};

/// How long requests that are under way have when the provider stops.
const GRACE: Duration = Duration::from_secs(3);

/// How often what nobody needs any more is looked for.
const CLEAN_EVERY: Duration = Duration::from_secs(60);

/// A provider that could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// It cannot fence its pods in.
    #[error("pods cannot be fenced in")]
    Firewall(#[from] FirewallError),
    /// It is not listed, and could not be.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// It cannot listen.
    #[error("{0} cannot be listened on")]
    Listen(SocketAddr, #[source] io::Error),
    /// Its data folder cannot be used.
    #[error("the folder {0} cannot be used")]
    Folder(String, #[source] io::Error),
    /// Secrets would end up on a disk.
    #[error(
        "no file system in memory could be mounted at {0}, where secrets are kept; run the provider as root"
    )]
    Memory(String, #[source] nix::Error),
    /// Docker cannot be used.
    #[error("Docker cannot be used; is the engine running?")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Root in a container would be root on the machine, and is not to be.
    #[error(
        "engine.user_namespaces is set, and Docker does not remap users; write \"userns-remap\": \"default\" into its daemon.json and start it again, or unset this"
    )]
    NoUserNamespaces,
    /// The engine gives no GPUs, or gives them to everybody.
    #[error(transparent)]
    Gpus(#[from] GpuError),
    /// Registries cannot be asked.
    #[error("registries cannot be asked")]
    Registries(#[source] reqwest::Error),
    /// The chain cannot be read.
    #[error("the chain cannot be read")]
    Chain(#[from] ReadError),
    /// TLS could not be set up.
    #[error("TLS could not be set up")]
    Tls(#[source] io::Error),
    /// A part of it ended.
    #[error("the {0} ended")]
    Ended(&'static str),
}

/// Runs a provider until `stop`. `ready` is told once it quotes. Pods go on running when it returns.
///
/// # Errors
/// When it cannot start; afterwards it goes on whatever does not answer.
pub async fn run(
    mut config: Config,
    sender: Sender,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), RunError> {
    let folder = |path: &Path| {
        let name = path.display().to_string();
        move |err| RunError::Folder(name, err)
    };
    if let Err(err) = raise_files() {
        tracing::warn!(error = %err, "the limit of open files was not raised");
    }
    std::fs::create_dir_all(&config.data).map_err(folder(&config.data))?;
    adopt_prices(&mut config);
    let keys = Keys::open(&config.data)?;
    in_memory(&config.run)?;
    firewall::ensure().await?;
    let volumes = Volumes::open(&config.data, &config.run).map_err(folder(&config.data))?;
    let pods = Pods::open(&config.data).map_err(folder(&config.data))?;
    let shown = Shown::open(&config.data).map_err(folder(&config.data))?;
    let blobs = Blobs::open(&config.data.join("blobs"), config.pushed.0, config.images)
        .map_err(folder(&config.data))?;
    let records = Records::open(&config.data, config.keep).map_err(folder(&config.data))?;
    let records = Arc::new(records);
    let who = sender.address();
    let engine = connect(&config, &sender, volumes, Arc::clone(&records)).await?;
    if config.user_namespaces && engine.abilities().root.is_none() {
        return Err(RunError::NoUserNamespaces);
    }
    engine.abilities().give(&config.gpus)?;
    let api = listen(config.api).await?;
    let ingress = listen(config.ingress).await?;
    let secure = match &config.tls {
        Some(tls) => Some(listen(tls.listen).await?),
        None => None,
    };
    let admin = match config.admin {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let done = register(&sender, &config, &keys).await?;
    if done.listed {
        tracing::info!("provider {who} is listed at {}", config.endpoint);
    }
    let token = sender.chain().token().await?;
    let root = engine.root().await;
    let house = House::open(&config, token, Arc::clone(&records), root.as_deref());
    let house = house.map_err(folder(&config.data))?;
    let ttl = sender.chain().registry().TTL().call().await.map_err(ReadError::from)?;

    let tls = RustlsConfig::from_pem(
        keys.tls_cert_pem.clone().into_bytes(),
        keys.tls_key_pem.as_bytes().to_vec(),
    );
    let tls = tls.await.map_err(RunError::Tls)?;
    let chain = sender.chain().clone();
    let file = config.data.join("leases.json");
    let follower = Follower::open(chain.clone(), who, config.confirmations, file);
    let routes = Routes::default();
    let certificates = config.tls.clone().map(|tls| HostCertificates::open(tls, &config.data));
    let certificates = certificates.transpose().map_err(folder(&config.data))?;
    let ports = Ports::open(config.ports.clone(), &config.data, stop.clone());
    let ports = ports.map_err(folder(&config.data))?;
    let shared = Arc::new(Shared {
        sender: sender.clone(),
        engine,
        pods,
        shown,
        blobs: blobs.clone(),
        unlocks: Unlocks::default(),
        keys,
        statuses: Statuses::new(Arc::clone(&records)),
        records,
        holds: Holds::default(),
        routes: routes.clone(),
        served: Served::default(),
        ports,
        certificates,
        capacity: config.capacity,
        included: config.egress.included,
        seen: watch::Sender::default(),
        runs: Runs::default(),
        house,
        addons: Addons::default(),
        bids: Bids::new(config.bids, config.terms),
    });
    let (tell, head) = watch::channel(chain::Head::default());
    let mut first = shared.seen.subscribe();

    let mut tasks = JoinSet::new();
    let poll = config.poll;
    tasks.spawn(async move {
        heads(chain, poll, tell).await;
        "head follower"
    });
    let reconciler = Reconciler::new(Arc::clone(&shared), follower, head);
    let stopping = stop.clone();
    tasks.spawn(async move {
        reconciler.run(stopping).await;
        "reconciler"
    });
    let (answering, stopping) = (Arc::clone(&shared), stop.clone());
    tasks.spawn(async move {
        answer::run(answering, stopping).await;
        "challenge answerer"
    });
    let (above, every, stopping) = (config.collect_above, config.collect_every, stop.clone());
    let metered = Arc::clone(&shared);
    tasks.spawn(async move {
        meter::run(metered, above, every, stopping).await;
        "meter"
    });
    let (beating, stopping) = (Arc::clone(&shared), stop.clone());
    tasks.spawn(async move {
        heartbeat(beating, Duration::from_secs(ttl.to::<u64>() / 3), stopping).await;
        "heartbeat"
    });
    let (followed, stopping) = (Arc::clone(&shared), stop.clone());
    tasks.spawn(async move {
        keep::follow(followed, stopping).await;
        "event follower"
    });
    let (tidied, stopping) = (Arc::clone(&shared), stop.clone());
    tasks.spawn(async move {
        keep::tidy(tidied, stopping).await;
        "tidier"
    });
    let (observed, stopping) = (Arc::clone(&shared), stop.clone());
    tasks.spawn(async move {
        observe::run(observed, stopping).await;
        "observer"
    });
    let fixed = Fixed::of(&config);
    for addon in Addon::ALL {
        let (shared, fixed) = (Arc::clone(&shared), fixed.clone());
        let (data, stopping) = (config.data.clone(), stop.clone());
        tasks.spawn(async move {
            addons::run(shared, fixed, data, addon, stopping).await;
            "keeper of add-ons"
        });
    }
    if let Some(listener) = admin {
        let site = Site::open(&config, Arc::clone(&shared)).map_err(folder(&config.data))?;
        let stopping = stop.clone();
        tasks.spawn(async move {
            let served = axum::serve(listener, admin::router(Arc::new(site)).into_make_service());
            if let Err(err) =
                served.with_graceful_shutdown(async move { stopping.cancelled().await }).await
            {
                tracing::error!(error = %err, "the admin page failed");
            }
            "admin page"
        });
    }
    let (cleaned, kept, stopping) = (Arc::clone(&shared), blobs.clone(), stop.clone());
    let life = Duration::from_secs(u64::from(config.terms.quote_life) + 600);
    tasks.spawn(async move {
        clean(cleaned, kept, life, stopping).await;
        "cleaner"
    });
    let attester = Arc::new(Attester::find());
    let visits = Visits { shared: Arc::clone(&shared), attester: Arc::clone(&attester) };
    let mut visitors = Ingress::new(routes).about(wire::WELL_KNOWN, Arc::new(visits));
    if let Some(certificates) = &shared.certificates {
        let (shown, port) = (certificates.shown().clone(), certificates.config().port);
        visitors = visitors.challenges(certificates.challenges().clone()).redirect(shown, port);
    }
    if let Some(listener) = secure {
        let (served, visitors, stopping) = (Arc::clone(&shared), visitors.clone(), stop.clone());
        tasks.spawn(async move {
            if let Some(certificates) = &served.certificates {
                let served = visitors.https(listener, certificates.shown(), stopping).await;
                if let Err(err) = served {
                    tracing::error!(error = %err, "HTTPS at the ingress failed");
                }
            }
            "HTTPS ingress"
        });
        let (renewed, stopping) = (Arc::clone(&shared), stop.clone());
        tasks.spawn(async move {
            if let Some(certificates) = &renewed.certificates {
                certificates.run(stopping).await;
            }
            "certificates"
        });
    }
    let stopping = stop.clone();
    tasks.spawn(async move {
        if let Err(err) = visitors.http(ingress, stopping).await {
            tracing::error!(error = %err, "the ingress failed");
        }
        "ingress"
    });
    let open = Arc::clone(&shared);
    tasks.spawn(async move {
        open.ports.run().await;
        "public ports"
    });
    let chain_id = sender.chain().id();
    let routes = router(Arc::new(Api {
        shared,
        sessions: Sessions::new(who, chain_id),
        blobs,
        slots: Slots::default(),
        attester,
        stop: stop.clone(),
        quoter: Quoter { config, nonces: Nonces::new() },
    }));
    let handle = Handle::new();
    let api = api.into_std().map_err(RunError::Tls)?;
    let server = axum_server::from_tcp_rustls(api, tls).map_err(RunError::Tls)?;
    let server = server.handle(handle.clone()).serve(routes.into_make_service());
    tasks.spawn(async move {
        if let Err(err) = server.await {
            tracing::error!(error = %err, "the API failed");
        }
        "API"
    });

    // It quotes once it knows what it runs.
    tokio::select! {
        () = stop.cancelled() => (),
        _changed = first.changed() => ready(),
    }
    let ended = tokio::select! {
        // What ends because of it did not end by itself.
        biased;
        () = stop.cancelled() => None,
        ended = tasks.join_next() => ended,
    };
    stop.cancel();
    handle.graceful_shutdown(Some(GRACE));
    let rest = async { while tasks.join_next().await.is_some() {} };
    let _out_of_time = tokio::time::timeout(GRACE * 2, rest).await;
    match ended {
        None => Ok(()),
        Some(part) => Err(RunError::Ended(part.unwrap_or("panicking part"))),
    }
}

async fn connect(
    config: &Config,
    sender: &Sender,
    volumes: Volumes,
    records: Arc<Records>,
) -> Result<Engine, RunError> {
    let deployment = sender.chain().deployment();
    let owner = Owner {
        provider: sender.address(),
        chain_id: deployment.chain_id,
        leases: deployment.leases,
    };
    let folder = config.data.join("blobs");
    let registries = Registries::new(config.registries.clone(), config.images, &folder);
    let registries = registries.map_err(RunError::Registries)?;
    let engine = Engine::connect(owner, config, volumes, registries, records).await;
    engine.map_err(|err| RunError::Engine(Box::new(err)))
}

/// Removes every pod of a provider that does not run, with its volumes, whatever the chain says: for a market that is
/// thrown away as a whole.
///
/// # Errors
/// When something could not be removed.
pub async fn purge(config: &Config, sender: &Sender) -> Result<(), PurgeError> {
    let volumes = Volumes::open(&config.data, &config.run).map_err(left)?;
    let records = Arc::new(Records::open(&config.data, config.keep).map_err(left)?);
    let engine = connect(config, sender, volumes, records).await?;
    for key in engine.pods().await.map_err(left)?.into_keys() {
        engine.remove(key).await.map_err(left)?;
    }
    engine.tidy_looks().await.map_err(left)?;
    engine.purge_decrypted().await.map_err(left)?;
    if engine.is_unused().await.map_err(left)? {
        firewall::remove().await.map_err(left)?;
    }
    match is_in_memory(&config.run) {
        true => umount(&config.run).map_err(left),
        false => Ok(()),
    }
}

fn left(err: impl std::error::Error + Send + Sync + 'static) -> PurgeError {
    PurgeError::Left(Box::new(err))
}

/// Something that `purge` could not do.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The engine cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A pod, or what was around it, could not be removed.
    #[error("not everything of the provider could be removed")]
    Left(#[source] Box<dyn std::error::Error + Send + Sync>),
}

async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address).await.map_err(|err| RunError::Listen(address, err))
}

/// Makes sure that `path` is a file system in memory: what is in it never touches a disk.
fn in_memory(path: &Path) -> Result<(), RunError> {
    let name = path.display().to_string();
    std::fs::create_dir_all(path).map_err(|err| RunError::Folder(name.clone(), err))?;
    if is_in_memory(path) {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("roadstead"), path, Some("tmpfs"), flags, Some("mode=0700,size=256m"))
        .map_err(|err| RunError::Memory(name, err))
}

fn is_in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// Says every `every` that the provider is alive.
async fn heartbeat(shared: Arc<Shared>, every: Duration, stop: CancellationToken) {
    let mut tick = tokio::time::interval(every.max(Duration::from_secs(1)));
    // Being listed counts as the first.
    tick.reset();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => (),
        }
        let registry = shared.sender.chain().deployment().registry;
        if let Err(err) = shared.sender.send(registry, &Registry::heartbeatCall {}).await {
            let cause = causes(&err);
            shared.house.troubles.note("heartbeat", &cause);
            tracing::warn!(error = cause, "the heartbeat was not sent; it is tried again");
        }
    }
}

async fn clean(shared: Arc<Shared>, blobs: Blobs, life: Duration, stop: CancellationToken) {
    // Before the first pass it is not known what is used.
    let mut seen = shared.seen.subscribe();
    tokio::select! {
        () = stop.cancelled() => return,
        _first = seen.wait_for(|snapshot| snapshot.head.number > 0) => (),
    }
    let mut tick = tokio::time::interval(CLEAN_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => (),
        }
        shared.touch_encrypted();
        let cleaned = shared.pods.expire(&shared.used(), life).and_then(|()| blobs.expire());
        let cleaned = match cleaned {
            Ok(()) => shared.shown.tidy(&shared.engine).await,
            Err(err) => Err(err),
        };
        if let Err(err) = shared.engine.tidy_layers().await {
            tracing::warn!(
                error = causes(&err),
                "layers of former containers could not be removed"
            );
        }
        if let Err(err) = shared.engine.tidy_images().await {
            tracing::warn!(error = causes(&err), "images that no pod uses could not be removed");
        }
        // A start that was called off, or died with the program, may have left one.
        if let Err(err) = shared.engine.tidy_looks().await {
            tracing::warn!(error = causes(&err), "a container that never ran stays for now");
        }
        shared.purge().await;
        if let Err(err) = cleaned {
            tracing::warn!(error = %err, "what nobody needs any more could not be removed");
        }
    }
}
