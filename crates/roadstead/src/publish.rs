//! The verbs that spend: what is asked of the person, and what is printed. What they do is in `deploy` and `money`, where
//! other roles use it as well.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, bail, ensure};
use protocol::{
    amount::Amount,
    lease::CloseReason,
    pod::{MaxPrice, Tls},
};

use crate::{
    account::AccountName,
    cli::{self, LeaseRef},
    deploy, market,
    market::Options,
    money::{self, Funds},
    output,
    podfile::{PodFile, Ready},
    progress::{OnStderr, Progress as _, Step},
    session::Session,
    settings::Settings,
    show,
    state::State,
    wallet,
};

/// Unlocks the wallet and connects to the chain.
pub(crate) async fn session(settings: &Settings) -> anyhow::Result<Session> {
    let chain = settings.connect().await?;
    let session = Session::open(chain, wallet::unlock(settings)?).await?;
    Ok(Session { market: settings.market.clone(), ..session })
}

/// `roadstead quote`.
pub(crate) async fn quote(
    settings: &Settings,
    file: &cli::PodFile,
    choice: &cli::Choice,
) -> anyhow::Result<()> {
    let progress = OnStderr::new();
    let (_file, ready) = read(settings, file, &progress).await?;
    let session = session(settings).await?;
    let options = options(&session, choice, None)?;
    let offers = market::offers(&session, &ready, &options, &progress).await?;
    show::offers(settings, &session, &offers)
}

/// `roadstead deploy`.
pub(crate) async fn deploy(
    settings: &Settings,
    file: &cli::PodFile,
    choice: &cli::Choice,
    app: Option<String>,
    fund: Option<&str>,
    yes: bool,
) -> anyhow::Result<()> {
    may_spend(yes)?;
    let progress = OnStderr::new();
    let (file, ready) = read(settings, file, &progress).await?;
    let session = session(settings).await?;
    let mut state = State::read(&settings.home, session.chain().deployment())?;
    let app = app.unwrap_or_else(|| file.app());
    ensure!(
        app.parse::<u64>().is_err(),
        "{app:?} would be taken for a lease's number; name the app with --app"
    );
    vacant(&session, &state, &app).await?;
    let options = options(&session, choice, fund)?;
    let offers = market::offers(&session, &ready, &options, &progress).await?;
    let offer = offers.first().context("no provider made an offer")?;
    let question = format!(
        "Deploy {app} at {} ({}) for {}{}?",
        output::short(offer.response.quote.provider),
        output::tame(&offer.view.listing.region),
        output::price(offer.response.rate(), &session.token),
        output::extras(&offer.response.price, &session.token)
    );
    consent(yes, &question)?;

    let opening = deploy::open(&session, &ready, &options, offer, &progress);
    let opened = interruptible(
        opening,
        "interrupted while the lease was being opened; see with `roadstead ps` whether it was",
    )
    .await?;
    state.add_account(&options.account)?;
    state.set_app(&app, opened.lease)?;
    state.set_key(opened.lease, opened.key.as_ref())?;
    let waiting = deploy::wait(&session, &opened, &progress);
    let words =
        format!("interrupted; lease {0} goes on, and `roadstead down {0}` ends it", opened.lease);
    let status = match interruptible(waiting, &words).await {
        Ok(status) => status,
        Err(err) => {
            if err.downcast_ref::<deploy::NotStarted>().is_some() {
                state.forget(opened.lease)?;
            }
            return Err(err);
        }
    };
    show::deployed(settings, &session, &opened, &status, Some(&app)).await
}

/// `roadstead update`.
pub(crate) async fn update(
    settings: &Settings,
    lease: &LeaseRef,
    file: &cli::PodFile,
    max_price: Option<MaxPrice>,
    fund: Option<&str>,
    yes: bool,
) -> anyhow::Result<()> {
    may_spend(yes)?;
    let progress = OnStderr::new();
    let (_file, ready) = read(settings, file, &progress).await?;
    let session = session(settings).await?;
    let mut state = State::read(&settings.home, session.chain().deployment())?;
    let id = state.resolve(lease)?;
    let view = deploy::own(&session, id).await?;
    let accounts = show::accounts(session.chain(), session.wallet(), &state).await?;
    let account = accounts.get(&view.account);
    let options = Options {
        account: account
            .with_context(|| format!("the account of lease {id} is not known"))?
            .clone(),
        max_rate: rate(&session, max_price.as_ref())?,
        fund: amount(&session, fund)?,
        provider: None,
    };
    money::require_afloat(&session, &options.account, view.account, options.fund).await?;
    // Secrets are no part of the pod, and those of certificates are read whenever they come.
    let runs = deploy::pod_of(&session, id).await? == ready.pod.hash();
    let certificates = ready.pod.tls().values().any(|tls| matches!(tls, Tls::Own { .. }));
    let asked = deploy::ask_change(&session, id, &ready, &options).await;
    let cheaper = |change: &deploy::Change| change.offer.response.rate() < change.before;
    let change = match asked {
        Ok(change) if !runs || cheaper(&change) => change,
        // The lease goes on as it was agreed to, whatever a change would cost by now.
        Err(err) if !runs || !certificates => return Err(err),
        asked => {
            // Who may have the key is no part of the pod, either.
            state.set_key(id, ready.key().as_ref())?;
            if certificates {
                deploy::send_secrets(&session, id, &ready, &options, &progress).await?;
            }
            let value = serde_json::json!({ "lease": id, "changed": false });
            return output::show(settings.json, &value, || {
                let sent =
                    if certificates { "its certificates were sent" } else { "nothing was sent" };
                let why = match asked {
                    Ok(_dearer) => "would cost no less".to_owned(),
                    Err(err) => format!("cannot be had otherwise ({})", output::causes(&err)),
                };
                format!("lease {id} runs this pod already, and {why}; {sent}")
            });
        }
    };
    let question = format!(
        "Change lease {id}, which costs {} now, for {}{}?",
        change.before.per_hour(&session.token),
        output::price(change.offer.response.rate(), &session.token),
        output::extras(&change.offer.response.price, &session.token)
    );
    consent(yes, &question)?;
    // Said before, as the change goes on when this is interrupted: the key is sent by what was asked for last.
    state.set_key(id, ready.key().as_ref())?;
    let changing = deploy::change(&session, &ready, &options, &change, &progress);
    let words = format!("interrupted while lease {id} was being changed; it goes on in any case");
    let opened = interruptible(changing, &words).await?;
    let words = format!("interrupted; lease {id} is changed, `roadstead ps` shows how far it is");
    let status = interruptible(deploy::wait(&session, &opened, &progress), &words).await?;
    show::deployed(settings, &session, &opened, &status, state.app_of(id)).await
}

/// `roadstead down`.
pub(crate) async fn down(settings: &Settings, lease: &LeaseRef) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let mut state = State::read(&settings.home, session.chain().deployment())?;
    let id = state.resolve(lease)?;
    deploy::own(&session, id).await?;
    OnStderr::new().step(&Step::Sending(format!("closes lease {id}")));
    let block = deploy::close(&session, id, CloseReason::PayerDone).await?;
    state.forget(id)?;
    output::show(settings.json, &serde_json::json!({ "lease": id, "block": block }), || {
        format!(
            "lease {id} is closed, in block {block}; nothing is paid for it from there on\n\
             `roadstead logs {id}` and `roadstead volume ls {id}` show what its provider still keeps"
        )
    })
}

/// `roadstead fund`.
pub(crate) async fn fund(
    settings: &Settings,
    text: &str,
    account: &AccountName,
) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let amount = amount(&session, Some(text))?.filter(|amount| amount.0 > 0);
    let amount = amount.context("nothing is to be put in; name an amount such as 12.5")?;
    money::deposit(&session, account.salt(), amount, &OnStderr::new()).await?;
    State::read(&settings.home, session.chain().deployment())?.add_account(account)?;
    standing(settings, &session, account).await
}

/// `roadstead withdraw`.
pub(crate) async fn withdraw(
    settings: &Settings,
    text: &str,
    account: &AccountName,
) -> anyhow::Result<()> {
    let session = session(settings).await?;
    let wanted = match text {
        "all" => None,
        text => amount(&session, Some(text))?,
    };
    let id = account.id(session.wallet());
    money::withdraw(&session, id, wanted, &OnStderr::new()).await?;
    standing(settings, &session, account).await
}

async fn standing(
    settings: &Settings,
    session: &Session,
    account: &AccountName,
) -> anyhow::Result<()> {
    let id = account.id(session.wallet());
    let funds = Funds::read(session, id).await?;
    let value = serde_json::json!({
        "name": account.to_string(),
        "account": id,
        "free": funds.account.free.to_string(),
        "lockup": funds.account.lockup.to_string(),
        "fundedUntil": funds.account.fundedUntil.to::<u64>(),
    });
    output::show(settings.json, &value, || {
        format!("account {account} holds {}", money::standing(session, &funds))
    })
}

pub(crate) async fn read(
    settings: &Settings,
    file: &cli::PodFile,
    progress: &OnStderr,
) -> anyhow::Result<(PodFile, Ready)> {
    let file = PodFile::chosen(file)?;
    let ready = file.ready(&settings.home).await?;
    for note in &ready.notes {
        progress.step(&Step::Note(note.clone()));
    }
    Ok((file, ready))
}

fn options(session: &Session, choice: &cli::Choice, fund: Option<&str>) -> anyhow::Result<Options> {
    Ok(Options {
        account: choice.account.account.clone(),
        provider: choice.provider,
        max_rate: rate(session, choice.max_price.as_ref())?,
        fund: amount(session, fund)?,
    })
}

pub(crate) fn rate(
    session: &Session,
    price: Option<&MaxPrice>,
) -> anyhow::Result<Option<protocol::amount::Rate>> {
    price.map(|price| price.rate(&session.token)).transpose().context("--max-price")
}

pub(crate) fn amount(session: &Session, text: Option<&str>) -> anyhow::Result<Option<Amount>> {
    let parse = |text| Amount::parse(text, &session.token);
    text.map(parse).transpose().context("the amount cannot be read")
}

/// An app's name stands for one lease at a time.
async fn vacant(session: &Session, state: &State, app: &str) -> anyhow::Result<()> {
    let Some(lease) = state.lease_of(app) else { return Ok(()) };
    let open = deploy::own(session, lease).await.is_ok();
    ensure!(
        !open,
        "{app} runs already, under lease {lease}: `roadstead update {app}` changes it, `roadstead down {app}` ends it, \
         --app deploys it once more under another name"
    );
    Ok(())
}

/// Fails early where nobody could be asked.
pub(crate) fn may_spend(yes: bool) -> anyhow::Result<()> {
    ensure!(
        yes || std::io::stdin().is_terminal(),
        "there is no terminal to ask for consent at; say --yes, and --max-price to bound the price"
    );
    Ok(())
}

pub(crate) fn consent(yes: bool, question: &str) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was done"),
    }
}

/// Runs `work` until Ctrl-C, which ends it with `words`.
pub(crate) async fn interruptible<T>(
    work: impl Future<Output = anyhow::Result<T>>,
    words: &str,
) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        () = crate::interrupted() => bail!("{words}"),
    }
}
