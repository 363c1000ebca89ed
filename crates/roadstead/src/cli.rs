//! What can be typed.

use std::{convert::Infallible, path::PathBuf, str::FromStr};

use alloy::primitives::Address;
use clap::{
    Args, Parser, Subcommand,
    builder::{OsStringValueParser, TypedValueParser},
};
use clap_complete::Shell;
use protocol::pod::MaxPrice;

use crate::{
    account::AccountName, app, attest, bid, challenge, copy, dev, encrypt, events, exec, forward,
    indexer, market, moving, order, provider, providers, remote::Since, stake, stats, unlock,
    verify, volume, vouch, watch, watcher,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it failed; standard error says why
  2  the command line cannot be understood
  3  the lease was opened and did not start; standard error says why

What is read from the environment may also stand in $ROADSTEAD_HOME/config.toml, as rpc,
deployment, wallet, market and passphrase_file. The command line wins over the environment, and the
environment over the file.";

/// Run containers on an open market, paid per second out of an escrow.
///
/// A first deploy: `roadstead wallet create`, `roadstead init`, `roadstead fund 10`, `roadstead deploy`.
#[derive(Debug, Parser)]
#[command(name = "roadstead", version, after_long_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Print exact values, as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The JSON-RPC node of the chain [default: http://127.0.0.1:8545]
    #[arg(long, global = true, env = "ROADSTEAD_RPC", value_name = "URL")]
    pub(crate) rpc: Option<String>,
    /// The market that is asked which providers come into question; the chain stays the judge [default: none, the chain
    /// is looked through]
    #[arg(long, global = true, env = "ROADSTEAD_MARKET", value_name = "URL")]
    pub(crate) market: Option<String>,
    /// Where the contracts are [default: deployments/<chain id>.json]
    #[arg(long, global = true, env = "ROADSTEAD_DEPLOYMENT", value_name = "FILE", value_parser = path())]
    pub(crate) deployment: Option<PathBuf>,
    /// The encrypted key [default: wallet.json in the home folder]
    #[arg(long, global = true, env = "ROADSTEAD_WALLET", value_name = "FILE", value_parser = path())]
    pub(crate) wallet: Option<PathBuf>,
    /// A file with the wallet's passphrase, which is asked for otherwise
    #[arg(long, global = true, env = "ROADSTEAD_PASSPHRASE_FILE", value_name = "FILE", value_parser = path())]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Where config.toml, the wallet and the names of apps are kept [default: ~/.config/roadstead]
    #[arg(long, global = true, env = "ROADSTEAD_HOME", value_name = "FOLDER", value_parser = path())]
    pub(crate) home: Option<PathBuf>,
}

/// A path, or nothing: a variable that is set to nothing counts as unset.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// All verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a commented compose.yaml to begin with
    #[command(after_help = "Example:\n  roadstead init shop/compose.yaml")]
    Init {
        /// The file, which must not be there yet
        #[arg(default_value = "compose.yaml")]
        file: PathBuf,
    },
    /// Show the pod as it is understood, and what it costs at each provider
    ///
    /// Nothing is sent to any provider: prices are computed from the lists in the Registry. Without a chain the pod
    /// is shown without prices.
    #[command(after_help = "Example:\n  roadstead check compose.yaml")]
    Check {
        #[command(flatten)]
        file: PodFile,
        /// The price at this provider alone
        #[arg(long, value_name = "ADDRESS")]
        provider: Option<Address>,
    },
    /// Turn Kubernetes manifests or an Akash SDL into a Compose file
    ///
    /// The Compose file goes to standard output. What has no counterpart in it is listed on standard error, by its
    /// path and with the reason. The values of secrets are not copied.
    #[command(
        after_help = "Examples:\n  roadstead convert shop.yaml --output compose.yaml\n  kubectl get deploy,svc,cm -o yaml | roadstead convert -"
    )]
    Convert {
        /// The files, which may refer to one another; `-` is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Write the Compose file here
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Print the JSON Schema of x-roadstead
    #[command(after_help = "Example:\n  roadstead schema > x-roadstead.json")]
    Schema,
    /// List the providers, or those that come into question for a pod, and why the others do not
    ///
    /// Which come into question is judged by what the chain tells of them, as deploy does. Names for --where: region,
    /// address, price (with --for), free_stake, bonded, seen, attested(), vouched("attribute", "0x auditor").
    #[command(
        after_help = "Examples:\n  roadstead providers --for compose.yaml --why-not\n  roadstead providers --where 'region.startsWith(\"eu\") && free_stake >= 50'\n  roadstead providers --json | jq '.[].region'"
    )]
    Providers(providers::Args),
    /// Ask providers for signed quotes; nothing is opened
    #[command(after_help = "Example:\n  roadstead quote compose.yaml --max-price 0.02/h")]
    Quote {
        #[command(flatten)]
        file: PodFile,
        #[command(flatten)]
        choice: Choice,
    },
    /// Deploy a pod at the cheapest provider that comes into question
    ///
    /// Asks the providers that the file allows, checks their quotes, pushes images that were built here, opens a
    /// lease with the cheapest and waits until it runs and is paid for.
    #[command(
        after_help = "Examples:\n  roadstead deploy\n  roadstead deploy shop/compose.yaml --app shop --max-price 15/mo --fund 20 --yes"
    )]
    Deploy {
        #[command(flatten)]
        file: PodFile,
        #[command(flatten)]
        choice: Choice,
        /// Under which name the app is known here [default: the name of the file's folder]
        #[arg(long, value_name = "NAME")]
        app: Option<String>,
        /// Put this many tokens into the account first
        #[arg(long, value_name = "AMOUNT")]
        fund: Option<String>,
        /// Do not ask before money is spent
        #[arg(long, short)]
        yes: bool,
    },
    /// List this wallet's leases; with --watch, as they change
    ///
    /// With --challenge, a provider that does not answer for a number of checks is challenged, once for each of its leases.
    /// One that is there answers that by itself, and gets the challenge's bond. If it does not in time, the lease is closed,
    /// and its coverage is claimed for this wallet.
    #[command(
        after_help = "Examples:\n  roadstead ps --all\n  roadstead ps --watch --challenge --checks 20 --yes"
    )]
    Ps(watch::Args),
    /// Show what a pod writes to its standard output and error
    #[command(after_help = "Example:\n  roadstead logs shop --follow --tail 100 --service web")]
    Logs {
        /// The lease's number, or the app's name
        lease: LeaseRef,
        /// Go on as lines are written
        #[arg(long, short)]
        follow: bool,
        /// Only the last lines
        #[arg(long, short = 'n', value_name = "N")]
        tail: Option<u32>,
        /// Only this service
        #[arg(long, short, value_name = "NAME")]
        service: Option<String>,
        /// Only since then: 10m, 36h, 7d, or 2026-01-31T12:00:00Z
        #[arg(long, value_name = "TIME")]
        since: Option<Since>,
    },
    /// Show what happened to a pod: started, ended, unhealthy, paused, changed, closed
    ///
    /// As the logs, it is kept for some days after the lease is closed.
    #[command(
        after_help = "Examples:\n  roadstead events shop\n  roadstead events shop --follow --since 1h"
    )]
    Events(events::Args),
    /// Run a program in a container; this program ends with the same code
    #[command(
        after_help = "Examples:\n  roadstead exec shop -- ls -l /data\n  roadstead exec -it shop --service db -- psql\n  roadstead exec -i shop -- sh -c 'cat > /data/new' < old"
    )]
    Exec(exec::Args),
    /// Open a shell in a container
    #[command(after_help = "Example:\n  roadstead shell shop --service web")]
    Shell(exec::ShellArgs),
    /// Copy files into a container or out of it
    ///
    /// As `docker cp`: into a folder that is there, or under a new name. Files that are copied in belong to who the
    /// service runs as. With -, a tar goes through as it is.
    #[command(
        after_help = "Examples:\n  roadstead cp ./app.conf shop:/etc/app.conf\n  roadstead cp shop:/data ./backup\n  roadstead cp shop:/data - | tar -t"
    )]
    Cp(copy::Args),
    /// Have ports here lead to ports in a pod, until Ctrl-C
    ///
    /// The service has to listen on all addresses, not on 127.0.0.1 alone.
    #[command(
        after_help = "Examples:\n  roadstead port-forward shop --service db 15432:5432\n  roadstead port-forward shop 8080"
    )]
    PortForward(forward::Args),
    /// Show what the services of a pod use
    #[command(
        after_help = "Examples:\n  roadstead stats shop\n  roadstead stats shop --follow --json"
    )]
    Stats(stats::Args),
    /// Watch what all services of all leases use; q quits
    #[command(after_help = "Example:\n  roadstead top")]
    Top,
    /// Volumes: list, export, import, remove
    #[command(subcommand)]
    Volume(volume::Verb),
    /// Move an app to another provider, with what is in its volumes
    ///
    /// The old lease goes on until the new one runs, and is stopped only for what changed meanwhile. If anything fails,
    /// the old one goes on.
    #[command(
        after_help = "Example:\n  roadstead move shop compose.yaml --to 0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
    )]
    Move(moving::Args),
    /// Change a running pod in place: its volumes stay, its price may change
    #[command(after_help = "Example:\n  roadstead update shop compose.yaml")]
    Update {
        /// The lease's number, or the app's name
        lease: LeaseRef,
        #[command(flatten)]
        file: PodFile,
        /// The highest price, in whole tokens per s, m, h, d or mo
        #[arg(long, value_name = "RATE")]
        max_price: Option<MaxPrice>,
        /// Put this many tokens into the account first
        #[arg(long, value_name = "AMOUNT")]
        fund: Option<String>,
        /// Do not ask before money is spent
        #[arg(long, short)]
        yes: bool,
    },
    /// End a lease: its pod is removed, payment stops
    ///
    /// Its provider keeps logs, events and volumes for a while: `roadstead volume ls` says until when.
    #[command(after_help = "Example:\n  roadstead down shop")]
    Down {
        /// The lease's number, or the app's name
        lease: LeaseRef,
    },
    /// Put tokens into an account
    #[command(after_help = "Example:\n  roadstead fund 25")]
    Fund {
        /// How many whole tokens, as in 12.5
        amount: String,
        #[command(flatten)]
        account: Account,
    },
    /// Take tokens that nothing is locked for out of an account
    #[command(after_help = "Examples:\n  roadstead withdraw 5\n  roadstead withdraw all")]
    Withdraw {
        /// How many whole tokens, as in 12.5; or `all`
        amount: String,
        #[command(flatten)]
        account: Account,
    },
    /// Show this wallet's accounts: what they hold, what they spend, how long that lasts
    #[command(after_help = "Example:\n  roadstead account --json")]
    Account,
    /// Orders: say what you need and the most you pay, and have providers underbid one another
    #[command(subcommand)]
    Order(order::Verb),
    /// Bid for an order, as a provider
    ///
    /// What backs the lease is bound out of the bond while the bid leads. Whoever wins has to start the pod, or loses a
    /// part of it.
    #[command(after_help = "Examples:\n  roadstead bid 7 0.01/h\n  roadstead bid 7 --yes")]
    Bid(bid::Args),
    /// Apps: a name on the chain, and a keeper that keeps their replicas deployed
    #[command(subcommand)]
    App(app::Verb),
    /// Challenge a lease's provider to show that it is there
    ///
    /// A provider that answers in time gets the challenge's bond. If it does not, the lease is closed and its coverage is
    /// the payer's.
    #[command(
        after_help = "Examples:\n  roadstead challenge shop --wait\n  roadstead challenge show shop"
    )]
    Challenge(challenge::Args),
    /// What is at stake: bond, unbond, withdraw, and who may lock it
    #[command(subcommand)]
    Stake(stake::Verb),
    /// Find out what a provider's machine can prove of itself
    ///
    /// The provider answers a fresh number with evidence that its hardware signed over its keys, which is judged here
    /// and offline. One without such hardware is UNATTESTED, which proves nothing of what runs there.
    #[command(
        after_help = "Example:\n  roadstead attest 0xe11EA0AF57b3Ddc04282d2f49Fd7e726C3e37494 --require tdx --collateral pccs.json"
    )]
    Attest(attest::Args),
    /// Find out what runs behind an app's URL, and whether the connection to it ends there
    ///
    /// The provider's ingress says which lease and pod it serves the host for, and has its hardware, or without such
    /// hardware its wallet, sign that together with a fresh number and the key of this very connection. All of it is
    /// checked against the chain: somebody in between with a certificate of their own is found out. It takes no wallet.
    #[command(
        after_help = "Examples:\n  roadstead verify https://shop.example.org\n  roadstead verify https://shop.example.org --require sev-snp --measurement 0x5c1b… --oldest amd.toml"
    )]
    Verify(verify::Args),
    /// Vouch that a provider has an attribute, which orders may require
    #[command(
        after_help = "Examples:\n  roadstead vouch 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 gdpr --until 90d\n  roadstead vouch 0x70997970C51812dc3A010C7d01b50e0d17dc79C8 gdpr --revoke"
    )]
    Vouch(vouch::Args),
    /// A seat among those who watch from outside whether pods answer
    #[command(subcommand)]
    Watcher(watcher::Verb),
    /// Take everything that waits for this wallet: slashes of others, bonds of challenges, deposits of orders
    #[command(after_help = "Example:\n  roadstead claim")]
    Claim,
    /// Encrypted images: make their app's key, encrypt and upload them
    #[command(subcommand)]
    Image(encrypt::Verb),
    /// Send the key of its encrypted images to the provider of a lease that waits for it
    ///
    /// A provider asks for it at each start: when a pod is deployed, changed, or made anew on a machine that has lost its
    /// containers. It is sealed for that start alone, to the key that the provider has in the Registry. With --watch this
    /// goes on and answers whenever a provider asks.
    #[command(after_help = "Examples:\n  roadstead unlock shop\n  roadstead unlock --watch")]
    Unlock(unlock::Args),
    /// The wallet: an encrypted key on this machine
    #[command(subcommand)]
    Wallet(Wallet),
    /// Rent out this machine
    #[command(subcommand)]
    Provider(provider::Verb),
    /// Mirror the chain in a database, for whoever wants to query it
    #[command(subcommand)]
    Indexer(indexer::Verb),
    /// Show the mirrored chain to programs and people
    #[command(subcommand)]
    Market(market::serve::Verb),
    /// Run the whole market on this machine: a private chain, the contracts, three providers, the market's page
    /// and API, funded wallets
    #[command(after_help = "Example:\n  roadstead dev --demo")]
    Dev(dev::Args),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  roadstead completions bash > /etc/bash_completion.d/roadstead"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What to do with the wallet.
#[derive(Debug, Subcommand)]
pub(crate) enum Wallet {
    /// Make a new key
    #[command(after_help = "Example:\n  roadstead wallet create")]
    Create,
    /// Keep a key that you have; it is read from standard input, or asked for
    #[command(after_help = "Example:\n  roadstead wallet import < key.hex")]
    Import,
    /// Print the wallet's address
    #[command(after_help = "Example:\n  roadstead wallet address")]
    Address,
    /// Print what the wallet holds outside of its accounts
    #[command(after_help = "Example:\n  roadstead wallet balance")]
    Balance,
}

/// Which pod file.
#[derive(Debug, Args)]
pub(crate) struct PodFile {
    /// The Compose file [default: compose.yaml, compose.yml, docker-compose.yml or docker-compose.yaml]
    pub(crate) file: Option<PathBuf>,
    /// Run the services of this profile, too [default: those in COMPOSE_PROFILES]
    #[arg(long = "profile", value_name = "NAME")]
    pub(crate) profiles: Vec<String>,
}

/// Which providers, at which price, on whose account.
#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// This provider alone
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) provider: Option<Address>,
    /// The highest price, in whole tokens per s, m, h, d or mo: 0.02/h [default: the file's]
    #[arg(long, value_name = "RATE")]
    pub(crate) max_price: Option<MaxPrice>,
    #[command(flatten)]
    pub(crate) account: Account,
}

/// Which account.
#[derive(Debug, Args)]
pub(crate) struct Account {
    /// The account's name; a wallet may have many, each funded by itself
    #[arg(long, value_name = "NAME", default_value_t)]
    pub(crate) account: AccountName,
}

/// A lease, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseRef {
    /// By its number on the chain.
    Number(u64),
    /// By the app's name on this machine.
    App(String),
}

impl FromStr for LeaseRef {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_err| Self::App(text.to_owned()), Self::Number))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_shows_an_example() {
        fn check(command: &clap::Command) {
            for verb in command.get_subcommands() {
                let example = verb
                    .get_after_help()
                    .is_some_and(|help| help.to_string().contains("roadstead "));
                assert!(example || verb.has_subcommands(), "{}", verb.get_name());
                check(verb);
            }
        }
        check(&Cli::command());
    }

    #[test]
    fn an_empty_path_can_be_said() {
        let cli = Cli::try_parse_from(["roadstead", "--home", "", "ps"]).unwrap();
        assert_eq!(cli.global.home, Some(PathBuf::new()));
    }

    #[test]
    fn leases_are_numbers_and_apps_are_not() {
        assert_eq!("7".parse(), Ok(LeaseRef::Number(7)));
        assert_eq!("shop".parse(), Ok(LeaseRef::App("shop".into())));
        assert_eq!("7up".parse(), Ok(LeaseRef::App("7up".into())));
    }
}
