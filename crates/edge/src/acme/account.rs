//! The account with the authority, which is made with the first order.

use instant_acme::{Account as Session, AccountCredentials, NewAccount};
use tokio::sync::Mutex;

use super::{Authority, folder::Folder, order::OrderError};

/// An account that is opened once.
pub(super) struct Account {
    authority: Authority,
    folder: Folder,
    open: Mutex<Option<Session>>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Account {
    pub(super) fn new(authority: Authority, folder: Folder) -> Self {
        Self { authority, folder, open: Mutex::new(None) }
    }

    /// The account: the one that is open, or kept, or else a new one.
    pub(super) async fn get(&self) -> Result<Session, OrderError> {
        let mut open = self.open.lock().await;
        if let Some(session) = &*open {
            return Ok(session.clone());
        }
        let builder = match &self.authority.root {
            Some(root) => Session::builder_with_root(root),
            None => Session::builder(),
        }
        .map_err(OrderError::Account)?;
        let session = match self.kept().await? {
            Some(credentials) => {
                builder.from_credentials(credentials).await.map_err(OrderError::Account)?
            }
            None => {
                let contact: Vec<_> = self.authority.contact.iter().map(String::as_str).collect();
                let new = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let created = builder.create(&new, self.authority.directory.clone(), None).await;
                let (session, credentials) = created.map_err(OrderError::Account)?;
                let json = serde_json::to_vec(&credentials).map_err(std::io::Error::from);
                self.folder
                    .keep_account(json.map_err(OrderError::Kept)?)
                    .await
                    .map_err(OrderError::Kept)?;
                session
            }
        };
        *open = Some(session.clone());
        Ok(session)
    }

    /// Makes a new one next time. The authority does not know this one, any more or yet.
    pub(super) async fn forget(&self) -> Result<(), OrderError> {
        let mut open = self.open.lock().await;
        self.folder.remove_account().await.map_err(OrderError::Kept)?;
        *open = None;
        Ok(())
    }

    async fn kept(&self) -> Result<Option<AccountCredentials>, OrderError> {
        let Some(json) = self.folder.account().await.map_err(OrderError::Kept)? else {
            return Ok(None);
        };
        serde_json::from_slice(&json).map(Some).map_err(|err| OrderError::Kept(err.into()))
    }
}
