//! From a URI and the flags beside it to `spec.storage`, with credentials from a folder or the usual variables. Reads files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use clap::Args;

use crate::{
    api::{
        AzureCredentials, AzureSource, CaBundle, ConfigMapKeyReference, GcsCredentials, GcsSource, HttpCredentials,
        HttpSource, HuggingFaceCredentials, HuggingFaceSource, S3Credentials, S3Source, SecretReference, Storage,
    },
    contract::environment::{
        ALLOWED_HOSTS, AZURE_KEYS, GCS_KEY_FILE, GCS_KEYS, HTTP_KEYS, HUB_ENDPOINT, HUGGING_FACE_KEYS, S3_KEYS,
    },
    local::Documents,
};

use super::NAMESPACE;

const SECRET: &str = "credentials";
const CONFIG_MAP: &str = "ca";

/// How to reach what a URI names.
#[derive(Args, Clone, Debug, Default)]
pub struct SourceArguments {
    /// The server's address, such as that of `MinIO`, an emulator or a mirror of the Hub; left out: the provider's own, or
    /// `HF_ENDPOINT` for hf://.
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The bucket's region (s3://).
    #[arg(long)]
    pub region: Option<String>,
    /// The storage account, for `az://container/path`; left out: `AZURE_STORAGE_ACCOUNT`.
    #[arg(long)]
    pub account: Option<String>,
    /// A file below an https:// address, which cannot be asked what it holds; can be repeated.
    #[arg(long = "file", value_name = "PATH", conflicts_with = "manifest")]
    pub files: Vec<String>,
    /// The file below an https:// address that names the others: `SHA256SUMS`, or the index of sharded weights.
    #[arg(long, value_name = "PATH")]
    pub manifest: Option<String>,
    /// Allow http://, which others on the network can read.
    #[arg(long)]
    pub insecure: bool,
    /// Use no credentials.
    #[arg(long, conflicts_with = "secrets")]
    pub anonymous: bool,
    /// A file with certificate authorities to trust too, PEM.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// A folder with one file a key, named as the keys of a Secret: `AWS_ACCESS_KEY_ID` and its fellows, service-account.json,
    /// `AZURE_STORAGE_KEY` and its fellows, `HF_TOKEN`, or token, username and password for https://. Left out: the environment
    /// variables of these names, the file that `GOOGLE_APPLICATION_CREDENTIALS` names, and for hf:// the file of a login
    /// (`HF_TOKEN_PATH`, `HF_HOME/token`, `~/.cache/huggingface/token`). A token of the Hub is sent to huggingface.co, and to the
    /// server that --endpoint or `HF_ENDPOINT` names.
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
}

/// The storage of a URI; its Secret and certificates become documents. None for schemes that mean nothing, which the plan refuses.
pub(super) fn storage(
    target: &str,
    arguments: &SourceArguments,
    documents: &mut Documents,
) -> Result<Option<Storage>, String> {
    let scheme = target.split_once("://").map_or("", |(scheme, _)| scheme);
    let kind = match scheme {
        "s3" => Kind::S3,
        "gs" | "gcs" => Kind::Gcs,
        "abfs" | "abfss" | "az" => Kind::Azure,
        "http" | "https" => Kind::Http,
        "hf" => Kind::Hub,
        _ => return Ok(None),
    };
    arguments.check(kind)?;
    let named = credentials(kind, target, arguments, documents)?;
    let ca_bundle = ca(arguments, documents)?;
    let (endpoint, insecure, anonymous) = (arguments.endpoint.clone(), arguments.insecure, arguments.anonymous);
    let secret = || SecretReference { name: SECRET.to_owned() };
    let secret_ref = named.then(secret);
    let said = named || anonymous;
    let mut storage = Storage::default();
    match kind {
        Kind::S3 => {
            let credentials = said.then_some(S3Credentials { secret_ref, anonymous });
            let region = arguments.region.clone();
            storage.s3 = Some(S3Source { region, endpoint, insecure, ca_bundle, credentials, ..S3Source::default() });
        }
        Kind::Gcs => {
            let credentials = said.then_some(GcsCredentials { secret_ref, anonymous });
            storage.gcs = Some(GcsSource { bucket: None, endpoint, insecure, ca_bundle, credentials });
        }
        Kind::Azure => {
            let credentials = said.then_some(AzureCredentials { secret_ref, anonymous });
            let given = arguments.account.clone().or_else(|| variable("AZURE_STORAGE_ACCOUNT"));
            let account = given.filter(|_| !target.contains('@'));
            storage.azure = Some(AzureSource { account, container: None, endpoint, insecure, ca_bundle, credentials });
        }
        Kind::Http => {
            let credentials = named.then(|| HttpCredentials { secret_ref: secret() });
            let (files, manifest) = (arguments.files.clone(), arguments.manifest.clone());
            storage.http = Some(HttpSource { url: None, files, manifest, insecure, ca_bundle, credentials });
        }
        Kind::Hub => {
            let credentials = named.then(|| HuggingFaceCredentials { secret_ref: secret() });
            storage.hugging_face =
                Some(HuggingFaceSource { endpoint, insecure, ca_bundle, credentials, ..HuggingFaceSource::default() });
        }
    }
    Ok(Some(storage))
}

/// Kinds of servers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    S3,
    Gcs,
    Azure,
    Http,
    Hub,
}

impl Kind {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &S3_KEYS,
            Self::Gcs => &GCS_KEYS,
            Self::Azure => &AZURE_KEYS,
            Self::Http => &HTTP_KEYS,
            Self::Hub => &HUGGING_FACE_KEYS,
        }
    }
}

impl SourceArguments {
    /// Refuses flags that mean nothing here.
    fn check(&self, kind: Kind) -> Result<(), String> {
        let listed = !self.files.is_empty() || self.manifest.is_some();
        for (given, means, flag, scheme) in [
            (self.region.is_some(), kind == Kind::S3, "--region", "s3://"),
            (self.account.is_some(), kind == Kind::Azure, "--account", "abfs:// and az://"),
            (listed, kind == Kind::Http, "--file and --manifest", "https://"),
        ] {
            if given && !means {
                return Err(format!(
                    "{flag} only mean{} something for {scheme}",
                    if flag.contains("and") { "" } else { "s" }
                ));
            }
        }
        if self.endpoint.is_some() && kind == Kind::Http {
            return Err("an https:// address names its server itself: leave out --endpoint".to_owned());
        }
        Ok(())
    }
}

/// Puts the keys into a Secret, and says whether there is one.
fn credentials(
    kind: Kind,
    target: &str,
    arguments: &SourceArguments,
    documents: &mut Documents,
) -> Result<bool, String> {
    if arguments.anonymous {
        return Ok(false);
    }
    let mut keys = BTreeMap::new();
    for key in kind.keys() {
        let value = match &arguments.secrets {
            Some(folder) => read(&folder.join(key))?,
            // A person's token of the Hub is found by the worker, which knows where it may go.
            None if kind == Kind::Http || kind == Kind::Hub => None,
            None => variable(key).map(String::into_bytes),
        };
        keys.extend(value.map(|value| ((*key).to_owned(), value)));
    }
    if arguments.secrets.is_none() && kind == Kind::Gcs {
        keys.extend(service_account()?.map(|file| (GCS_KEYS[0].to_owned(), file)));
    }
    // Without a secret of their own, tenant and client are those of a workload identity.
    let [key, sas, _, _, client_secret, _] = AZURE_KEYS;
    if arguments.secrets.is_none()
        && kind == Kind::Azure
        && ![key, sas, client_secret].iter().any(|key| keys.contains_key(*key))
    {
        keys.clear();
    }
    let named = arguments.secrets.is_some() || !keys.is_empty();
    // Whoever types the server's name also has the credentials: nobody else's spec sends them anywhere.
    let typed = if kind == Kind::Http { Some(target) } else { arguments.endpoint.as_deref() };
    if let Some(host) = typed.and_then(host).filter(|_| named && kind != Kind::S3) {
        keys.entry(ALLOWED_HOSTS.to_owned()).or_insert_with(|| host.into_bytes());
    }
    if named {
        documents.secrets.insert((NAMESPACE.to_owned(), SECRET.to_owned()), keys);
    }
    Ok(named)
}

/// What the flags make of the person's environment, as the Hub's tools read it.
pub(super) fn as_person(arguments: &SourceArguments, environment: &mut BTreeMap<String, String>) {
    // Whoever types the server's name may as well have set the variable.
    if let Some(endpoint) = &arguments.endpoint {
        environment.insert(HUB_ENDPOINT.to_owned(), endpoint.clone());
    }
    if arguments.anonymous {
        environment.insert("HF_HUB_DISABLE_IMPLICIT_TOKEN".to_owned(), "1".to_owned());
    }
}

/// Host and port of an address.
fn host(address: &str) -> Option<String> {
    let url = url::Url::parse(address).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

/// The file that the usual variable names, if it is that of a service account; a person's own login is an ambient identity.
fn service_account() -> Result<Option<Vec<u8>>, String> {
    let Some(path) = variable(GCS_KEY_FILE) else { return Ok(None) };
    let Some(bytes) = read(Path::new(&path))? else {
        return Err(format!("{GCS_KEY_FILE} names {path}, which does not exist"));
    };
    let kind = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
    Ok(kind.filter(|file| file["type"] == "service_account").map(|_| bytes))
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn ca(arguments: &SourceArguments, documents: &mut Documents) -> Result<Option<CaBundle>, String> {
    let Some(file) = &arguments.ca_file else { return Ok(None) };
    let pem = read(file)?.ok_or_else(|| format!("{}: no such file", file.display()))?;
    let files = BTreeMap::from([("ca.crt".to_owned(), pem)]);
    documents.config_maps.insert((NAMESPACE.to_owned(), CONFIG_MAP.to_owned()), files);
    let reference = ConfigMapKeyReference { name: CONFIG_MAP.to_owned(), key: "ca.crt".to_owned() };
    Ok(Some(CaBundle { config_map_ref: reference }))
}
