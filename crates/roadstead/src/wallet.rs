//! The wallet: one key, encrypted with a passphrase, in a file that only its owner can read.

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use alloy::{
    primitives::{Address, hex},
    providers::Provider as _,
    signers::{k256::elliptic_curve::rand_core::OsRng, local::PrivateKeySigner},
};
use anyhow::{Context as _, bail, ensure};
use protocol::amount::Amount;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{cli, output, settings::Settings};

/// The longest key or passphrase that is read.
const MAX_INPUT: usize = 4_096;

/// What is read of a keystore without its passphrase.
#[derive(Deserialize)]
struct Header {
    address: Address,
}

/// Does what was asked with the wallet.
pub(crate) async fn run(verb: &cli::Wallet, settings: &Settings) -> anyhow::Result<()> {
    match verb {
        cli::Wallet::Create => {
            vacant(&settings.wallet)?;
            show(settings, store(settings, &PrivateKeySigner::random())?)
        }
        cli::Wallet::Import => {
            vacant(&settings.wallet)?;
            let key = parse(&read_key()?)?;
            show(settings, store(settings, &key)?)
        }
        cli::Wallet::Address => show(settings, address(&settings.wallet)?),
        cli::Wallet::Balance => balance(settings).await,
    }
}

fn show(settings: &Settings, address: Address) -> anyhow::Result<()> {
    let value = serde_json::json!({ "address": address, "file": settings.wallet });
    output::show(settings.json, &value, || address.to_string())
}

async fn balance(settings: &Settings) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Balance {
        address: Address,
        token: Amount,
        symbol: String,
        /// In wei.
        gas: String,
    }
    let address = address(&settings.wallet)?;
    let chain = settings.connect().await?;
    let token = chain.token().await?;
    let held =
        chain.erc20().balanceOf(address).call().await.context("the token does not answer")?;
    let held = Amount(u128::try_from(held).unwrap_or(u128::MAX));
    let gas = chain.provider().get_balance(address).await?;
    let symbol = token.symbol.clone();
    let value = Balance { address, token: held, symbol, gas: gas.to_string() };
    output::show(settings.json, &value, || {
        let gas = alloy::primitives::utils::format_ether(gas);
        let gas = gas.split_once('.').map_or(gas.clone(), |(whole, fraction)| {
            format!("{whole}.{}", fraction.get(..6).unwrap_or(fraction))
        });
        format!("{} {}\n{gas} coins for gas", held.display(&token), token.symbol)
    })
}

/// The wallet's address, for which no passphrase is needed.
pub(crate) fn address(wallet: &Path) -> anyhow::Result<Address> {
    let text = std::fs::read(wallet).map_err(|err| missing(wallet, err))?;
    let header: Header = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not a wallet of `roadstead wallet`", wallet.display()))?;
    Ok(header.address)
}

/// The wallet's key. The passphrase is read from its file, or asked for.
pub(crate) fn unlock(settings: &Settings) -> anyhow::Result<PrivateKeySigner> {
    let wallet = &settings.wallet;
    let known = address(wallet)?;
    let passphrase = passphrase(settings, "Passphrase: ")?;
    let signer = PrivateKeySigner::decrypt_keystore(wallet, passphrase.as_bytes())
        .with_context(|| format!("{} does not open with this passphrase", wallet.display()))?;
    ensure!(
        signer.address() == known,
        "{} says that it holds the key of {known}, and holds the one of {}",
        wallet.display(),
        signer.address()
    );
    Ok(signer)
}

/// Whether `unlock` can do its work without anybody at the keyboard, or somebody is there.
pub(crate) fn can_unlock(settings: &Settings) -> bool {
    settings.wallet.exists()
        && (settings.passphrase_file.is_some() || std::io::stdin().is_terminal())
}

fn missing(wallet: &Path, err: std::io::Error) -> anyhow::Error {
    let path = wallet.display();
    if err.kind() == std::io::ErrorKind::NotFound {
        return anyhow::anyhow!(
            "there is no wallet at {path}; make one with `roadstead wallet create`"
        );
    }
    anyhow::Error::new(err).context(format!("the wallet {path} cannot be read"))
}

fn vacant(wallet: &Path) -> anyhow::Result<()> {
    ensure!(
        !wallet.exists(),
        "{} is there already and is not overwritten; name another file with --wallet",
        wallet.display()
    );
    Ok(())
}

/// Encrypts `signer` and keeps it where the settings say.
pub(crate) fn store(settings: &Settings, signer: &PrivateKeySigner) -> anyhow::Result<Address> {
    let passphrase = new_passphrase(settings)?;
    let wallet = &settings.wallet;
    let folder = match wallet.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // The keystore's writer takes a folder and the file's name; its file is as open as the umask says, the folder is not.
    let scratch = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o700))
        .prefix(".wallet-")
        .tempdir_in(folder)?;
    let key = Zeroizing::new(signer.to_bytes().0);
    PrivateKeySigner::encrypt_keystore(
        scratch.path(),
        &mut OsRng,
        key.as_slice(),
        passphrase.as_bytes(),
        Some("key"),
    )
    .context("the key could not be encrypted")?;
    let text = std::fs::read(scratch.path().join("key"))?;
    let mut keystore: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text)?;
    keystore.insert("address".into(), serde_json::json!(signer.address()));

    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(scratch.path())?;
    serde_json::to_writer(&mut file, &keystore)?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist_noclobber(wallet)
        .map_err(|err| err.error)
        .with_context(|| format!("the wallet could not be written to {}", wallet.display()))?;
    Ok(signer.address())
}

fn new_passphrase(settings: &Settings) -> anyhow::Result<Zeroizing<String>> {
    let first = passphrase(settings, "New passphrase: ")?;
    ensure!(!first.is_empty(), "the passphrase is empty");
    if settings.passphrase_file.is_none() {
        let again = passphrase(settings, "Once more: ")?;
        ensure!(first == again, "the two passphrases differ");
    }
    Ok(first)
}

fn passphrase(settings: &Settings, prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    let Some(path) = &settings.passphrase_file else { return ask(prompt) };
    let file = std::fs::File::open(path)
        .with_context(|| format!("the passphrase file {} cannot be read", path.display()))?;
    let text = read_text(file)
        .with_context(|| format!("the passphrase file {} cannot be read", path.display()))?;
    // Editors end a file with a line break, which nobody means.
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn ask(prompt: &str) -> anyhow::Result<Zeroizing<String>> {
    rpassword::prompt_password(prompt).map(Zeroizing::new).context(
        "there is no terminal to ask for the passphrase at; name a file with --passphrase-file or ROADSTEAD_PASSPHRASE_FILE",
    )
}

fn read_key() -> anyhow::Result<Zeroizing<String>> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return ask("Private key (hexadecimal): ");
    }
    read_text(stdin.lock()).context("the key cannot be read from standard input")
}

fn read_text(from: impl std::io::Read) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_INPUT));
    from.take(MAX_INPUT as u64).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str) -> anyhow::Result<PrivateKeySigner> {
    let mut key = Zeroizing::new([0_u8; 32]);
    // Neither error may quote what it read.
    if hex::decode_to_slice(text.trim(), key.as_mut_slice()).is_err() {
        bail!("the key is not 64 hexadecimal digits");
    }
    PrivateKeySigner::from_slice(key.as_slice())
        .map_err(|_err| anyhow::anyhow!("the key is not one of secp256k1: zero, or too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
    const ADDRESS: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";

    fn settings(folder: &Path, passphrase: &str) -> Settings {
        let file = folder.join(format!("passphrase-{passphrase}"));
        std::fs::write(&file, format!("{passphrase}\n")).unwrap();
        Settings {
            home: folder.to_owned(),
            rpc: String::new(),
            market: None,
            deployment: None,
            wallet: folder.join("new/wallet.json"),
            passphrase_file: Some(file),
            json: false,
        }
    }

    #[test]
    fn a_key_is_kept_for_its_passphrase_alone() {
        let folder = tempfile::tempdir().unwrap();
        let right = settings(folder.path(), "right");
        let stored = store(&right, &parse(KEY).unwrap()).unwrap();
        assert_eq!(stored.to_string(), ADDRESS);
        assert_eq!(address(&right.wallet).unwrap(), stored);
        assert_eq!(unlock(&right).unwrap().address(), stored);

        let mode = std::fs::metadata(&right.wallet).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = std::fs::read_to_string(&right.wallet).unwrap();
        assert!(!text.contains(&KEY[2..]));
        let left = std::fs::read_dir(folder.path().join("new")).unwrap().count();
        assert_eq!(left, 1, "nothing but the wallet is left");

        let wrong = settings(folder.path(), "wrong");
        let err = unlock(&wrong).unwrap_err().to_string();
        assert!(err.contains("passphrase"), "{err}");
    }

    #[test]
    fn a_wallet_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), "right");
        let first = store(&settings, &PrivateKeySigner::random()).unwrap();
        store(&settings, &PrivateKeySigner::random()).unwrap_err();
        vacant(&settings.wallet).unwrap_err();
        assert_eq!(address(&settings.wallet).unwrap(), first);
    }

    #[test]
    fn a_bad_key_is_not_repeated() {
        for bad in ["", "0x12", "zz", &"0".repeat(64), &"f".repeat(64), &format!("{KEY}00")] {
            let err = parse(bad).unwrap_err().to_string();
            assert!(bad.len() < 4 || !err.contains(bad), "{err}");
        }
        parse(&format!(" {KEY}\n")).unwrap();
        parse(&KEY[2..]).unwrap();
    }
}
