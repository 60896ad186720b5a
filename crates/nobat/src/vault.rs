//! Source of the master key that encrypts secrets.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Args;
use nobat_core::config::callback_secret::CallbackSecrets;
use nobat_core::ports::Clock;
use nobat_core::secrets::vault::{MasterKey, Vault, VaultSource, Without};
use nobat_core::service::backend::Backend;
use nobat_core::types::name::Tenant;
use nobat_worker::system::SystemClock;

use crate::backend::{BackendKind, Settings};

/// Settings of the master key. Each setting has a flag and an environment variable.
#[derive(Args, Clone, Debug)]
pub struct MasterKeyArgs {
    /// Master key that encrypts secrets: 32 bytes in base64, then older keys that only decrypt, separated by
    /// commas. Prefer the variable: other users of this machine can read flags. Default: a key in a file
    /// beside the data, created at the first start
    #[arg(long, env = "NOBAT_MASTER_KEY", value_delimiter = ',', hide_env_values = true)]
    pub master_key: Vec<MasterKeyText>,
    /// For `--backend aws`, instead of a master key: id or ARN of the KMS key that wraps the master key in
    /// the table
    #[arg(long, env = "NOBAT_KMS_KEY")]
    pub kms_key: Option<String>,
}

/// Text of a master key, not parsed by clap. clap prints invalid values, and a mistyped key is nearly the
/// real key.
#[derive(Clone)]
pub struct MasterKeyText(String);

impl From<String> for MasterKeyText {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for MasterKeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKeyText(…)")
    }
}

/// Two sources of the same vault, for the API and for the handlers, which need their own connections.
pub(crate) struct Vaults {
    pub(crate) of_api: Arc<dyn VaultSource>,
    pub(crate) of_handlers: Arc<dyn VaultSource>,
}

impl MasterKeyArgs {
    /// Returns the given master keys. Fails if the settings are not valid, before any file is created.
    pub(crate) fn check(&self, place: &Settings) -> anyhow::Result<Vec<MasterKey>> {
        let given = self.master_key.iter().map(|text| text.0.trim()).filter(|text| !text.is_empty());
        let given: Vec<MasterKey> =
            given.map(str::parse).collect::<Result<_, _>>().context("NOBAT_MASTER_KEY")?;
        ensure!(
            !given.is_empty() || place.backend == BackendKind::Aws || self.kms_key().is_none(),
            "NOBAT_KMS_KEY requires NOBAT_BACKEND=aws; for a SQLite file, set NOBAT_MASTER_KEY instead, or set neither variable to use a key file"
        );
        Ok(given)
    }

    fn kms_key(&self) -> Option<&str> {
        self.kms_key.as_deref().filter(|key| !key.is_empty())
    }

    /// Opens the vault that these settings name, for the secrets of that backend.
    pub(crate) async fn open(&self, place: &Settings, backend: &Backend) -> anyhow::Result<Vaults> {
        let given = self.check(place)?;
        if let [newest, older @ ..] = &given[..] {
            let vault = Vault::new(newest.clone(), older.to_vec());
            warn_of_closed(&vault, backend).await?;
            return Ok(Vaults::same(vault));
        }
        match place.backend {
            BackendKind::Sqlite => {
                let file = key_file(&place.data);
                let key = match read(&file)? {
                    Some(key) => key,
                    None if !signing(backend).await?.is_empty() => bail!(
                        "the key file {} is missing, and stored secrets are encrypted with its key: put it back, or set the key as NOBAT_MASTER_KEY. \
                         If the key is lost, set NOBAT_MASTER_KEY to a new key (`openssl rand -base64 32`), then set every secret again",
                        file.display()
                    ),
                    None => make(&file).with_context(|| format!("cannot create {}", file.display()))?,
                };
                let vault = Vault::new(key, Vec::new());
                warn_of_closed(&vault, backend).await?;
                Ok(Vaults::same(vault))
            }
            BackendKind::Aws => match self.kms_key() {
                Some(key) => wrapped(place, key).await,
                None => Ok(Vaults { of_api: Arc::new(Without), of_handlers: Arc::new(Without) }),
            },
        }
    }
}

impl Vaults {
    fn same(vault: Vault) -> Self {
        let vault = Arc::new(vault);
        Self { of_api: Arc::new(Arc::clone(&vault)), of_handlers: Arc::new(vault) }
    }
}

#[cfg(feature = "aws")]
async fn wrapped(place: &Settings, key: &str) -> anyhow::Result<Vaults> {
    let table = place.table.as_deref().unwrap_or_default();
    let (of_api, of_handlers) = (nobat_aws::vault(table, key).await?, nobat_aws::vault(table, key).await?);
    Ok(Vaults { of_api, of_handlers })
}

#[cfg(not(feature = "aws"))]
#[expect(clippy::unused_async, reason = "with the feature, it awaits")]
async fn wrapped(_place: &Settings, _key: &str) -> anyhow::Result<Vaults> {
    bail!("this nobat was built without the AWS backend; use a released program or the container image")
}

/// Returns the path of the key file, beside the data. The key is not in the data, so that a copy of the data
/// contains no readable secrets.
pub(crate) fn key_file(data: &Path) -> PathBuf {
    // Links are resolved, so that the key is beside the file itself.
    let data = std::fs::canonicalize(data).unwrap_or_else(|_| data.to_owned());
    let mut name = data.into_os_string();
    name.push(".key");
    name.into()
}

/// Returns the tenants whose callbacks are signed, and their secrets.
async fn signing(backend: &Backend) -> anyhow::Result<Vec<(Tenant, CallbackSecrets)>> {
    backend.config.signing(SystemClock.now()).await.context("cannot read the callback secrets")
}

/// Logs a warning if this key cannot decrypt a callback secret. Otherwise the operator would notice the
/// problem only at the first failed callback.
async fn warn_of_closed(vault: &Vault, backend: &Backend) -> anyhow::Result<()> {
    let now = SystemClock.now();
    for (tenant, secrets) in signing(backend).await? {
        let place = CallbackSecrets::secret_context(&tenant);
        if let Some(error) = secrets.secrets.live(now).find_map(|kept| vault.open(&place, &kept.sealed).err())
        {
            tracing::warn!(%tenant, %error, "a callback secret cannot be decrypted with the configured master key; callbacks are held");
        }
    }
    Ok(())
}

/// Reads the key from a file. Returns `None` if the file does not exist.
fn read(path: &Path) -> anyhow::Result<Option<MasterKey>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let mode = file.metadata()?.permissions().mode();
    // Mounting a volume can give a group access to its files. The next statement removes that access.
    let (of_group, of_all) = (mode & 0o070, mode & 0o007);
    let is_closed =
        of_all == 0 && (of_group == 0 || file.set_permissions(Permissions::from_mode(0o600)).is_ok());
    ensure!(
        is_closed,
        "other users can read {0}, which contains the master key; run `chmod 600 {0}`",
        path.display()
    );
    let mut text = String::new();
    file.read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    text.parse().map(Some).with_context(|| path.display().to_string())
}

/// Creates a key and writes it to a file, completely or not at all. This process has locked the data, so no
/// other process does the same.
fn make(path: &Path) -> anyhow::Result<MasterKey> {
    let key = MasterKey::new(rand::random());
    let draft = path.with_extension("key-draft");
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(format!("{}\n", key.to_text()).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()?;
    tracing::info!(file = %path.display(), "a master key was created; keep a copy of its file apart from the data");
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use nobat_core::auth::audit::{Action, Actor, Entry};
    use nobat_core::config::record::{Record, RecordName};

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn key_file_is_created_once_and_only_its_owner_can_read_it() {
        let folder = folder();
        let file = key_file(&folder.path().join("nobat.db"));
        assert_eq!(file, folder.path().join("nobat.db.key"));
        assert!(read(&file).unwrap().is_none());
        let key = make(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read(&file).unwrap(), Some(key));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no draft file is left");
    }

    #[test]
    fn key_file_that_others_can_read_or_without_a_key_is_refused() {
        let folder = folder();
        let file = folder.path().join("nobat.db.key");
        make(&file).unwrap();
        let set = |mode| std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        for mode in [0o604, 0o644, 0o666] {
            set(mode);
            assert!(read(&file).unwrap_err().to_string().contains("chmod 600"), "{mode:o}");
        }
        set(0o660);
        assert!(read(&file).unwrap().is_some(), "access of a group is removed");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "").unwrap();
        assert!(
            format!("{:#}", read(&file).unwrap_err())
                .contains("nobat.db.key: expected a master key: 32 bytes")
        );
    }

    #[tokio::test]
    async fn lost_key_file_is_not_replaced() {
        let folder = folder();
        let settings = crate::serve::Serve::parse_from([
            "serve".as_ref(),
            "--data".as_ref(),
            folder.path().join("nobat.db").as_os_str(),
        ]);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let opened = crate::backend::open(&settings.place, &clock).await.unwrap();
        settings.sealing.open(&settings.place, &opened.backend).await.unwrap();
        let (tenant, now) = (Tenant::default(), clock.now());
        let sealed = Vault::new(MasterKey::new([2; 32]), Vec::new()).seal(
            &CallbackSecrets::secret_context(&tenant),
            &[1; 32],
            [3; 12],
        );
        let secrets = CallbackSecrets::default().with(sealed, std::time::Duration::ZERO, now).unwrap();
        let record =
            Record { name: RecordName::of_callback_secret(&tenant), version: 1, body: secrets.to_text() };
        let entry = Entry {
            tenant,
            at: now,
            actor: Actor::Operator,
            action: Action::CallbackSecretSet,
            target: String::new(),
            mark: 1,
        };
        opened.backend.config.write(vec![record], entry).await.unwrap();
        settings.sealing.open(&settings.place, &opened.backend).await.unwrap();
        let file = key_file(&settings.place.data);
        std::fs::remove_file(&file).unwrap();
        let refused = settings
            .sealing
            .open(&settings.place, &opened.backend)
            .await
            .err()
            .expect("a refusal")
            .to_string();
        assert!(refused.contains("put it back") && !file.exists(), "{refused}");
        let given = |text: String| MasterKeyArgs { master_key: vec![text.into()], kms_key: None };
        assert!(
            given(MasterKey::new([1; 32]).to_text()).open(&settings.place, &opened.backend).await.is_ok()
        );
        let mistyped = given("hunter2".to_owned())
            .open(&settings.place, &opened.backend)
            .await
            .err()
            .expect("a refusal");
        assert_eq!(
            format!("{mistyped:#}"),
            "NOBAT_MASTER_KEY: expected a master key: 32 bytes in base64, as `openssl rand -base64 32` makes them"
        );
        assert!(!format!("{:?}", given("hunter2".to_owned())).contains("hunter2"));
    }
}
