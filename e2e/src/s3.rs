//! Objects of an S3 server, with any key whatever, through boto3 in the pinned Python environment (process I/O).
//!
//! An independent client on purpose: what the tests write is not written by the code that they test.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::python;

/// An S3 server and who we are there. Clones share one connection.
#[derive(Clone)]
pub struct S3 {
    /// Its URL as this process reaches it.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The identity's public part.
    pub access_key: String,
    /// The identity's secret part.
    pub secret_key: String,
    script: Arc<Mutex<Script>>,
}

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its `ETag`, with quotes.
    pub etag: String,
}

/// What an uploaded object holds.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// A file's content; large ones go up in parts.
    File(&'a Path),
}

impl S3 {
    /// A client for the server at `endpoint` under an access key and a secret key. `entry` is put before the command
    /// that speaks to the server (see [`crate::cluster::Cluster::entry`]).
    pub fn connect(endpoint: &str, region: &str, keys: (&str, &str), entry: &[String]) -> Result<Self> {
        Ok(Self {
            endpoint: endpoint.to_owned(),
            region: region.to_owned(),
            access_key: keys.0.to_owned(),
            secret_key: keys.1.to_owned(),
            script: Arc::new(Mutex::new(Script::start(entry)?)),
        })
    }

    /// The same server under other keys.
    #[must_use]
    pub fn with_keys(&self, keys: (&str, &str)) -> Self {
        Self { access_key: keys.0.to_owned(), secret_key: keys.1.to_owned(), ..self.clone() }
    }

    /// Makes a bucket (3 characters or more) unless it is there.
    pub fn create_bucket(&self, bucket: &str) -> Result<()> {
        self.ask(&json!({"op": "create_bucket", "bucket": bucket})).map(drop)
    }

    /// Removes a bucket and all of its objects.
    pub fn delete_bucket(&self, bucket: &str) -> Result<()> {
        self.ask(&json!({"op": "delete_bucket", "bucket": bucket})).map(drop)
    }

    /// Writes objects, several at a time. Keys are taken as they are: a trailing slash, spaces, anything.
    pub fn put(&self, bucket: &str, objects: &[(&str, Body)]) -> Result<()> {
        let objects: Vec<Value> = objects
            .iter()
            .map(|(key, body)| match body {
                Body::Bytes(bytes) => json!({"key": key, "base64": BASE64.encode(bytes)}),
                Body::File(path) => json!({"key": key, "file": path}),
            })
            .collect();
        self.ask(&json!({"op": "put", "bucket": bucket, "objects": objects})).map(drop)
    }

    /// Writes a file as an object with a checksum: of all of it, or, uploaded in parts, of the kind `FULL_OBJECT` or `COMPOSITE`.
    pub fn put_summed(&self, bucket: &str, key: &str, file: &Path, algorithm: &str, parts: Option<&str>) -> Result<()> {
        let operation = json!({
            "op": "put_summed", "bucket": bucket, "key": key, "file": file, "algorithm": algorithm, "parts": parts,
        });
        self.ask(&operation).map(drop)
    }

    /// Writes a folder's files below a prefix, their relative paths as keys. Returns the keys.
    pub fn put_folder(&self, bucket: &str, prefix: &str, folder: &Path) -> Result<Vec<String>> {
        let files = files_below(folder)?;
        let mut objects = Vec::new();
        for file in &files {
            let relative = file.strip_prefix(folder)?.to_str().context("a file name that is not UTF-8")?;
            objects.push((
                format!("{}/{relative}", prefix.trim_end_matches('/')).trim_start_matches('/').to_owned(),
                file,
            ));
        }
        let borrowed: Vec<_> = objects.iter().map(|(key, file)| (key.as_str(), Body::File(file))).collect();
        self.put(bucket, &borrowed)?;
        Ok(objects.into_iter().map(|(key, _)| key).collect())
    }

    /// An object's bytes.
    pub fn get(&self, bucket: &str, key: &str) -> Result<Vec<u8>> {
        let answer = self.ask(&json!({"op": "get", "bucket": bucket, "key": key}))?;
        Ok(BASE64.decode(answer.as_str().context("no content")?)?)
    }

    /// A URL that gives anyone the object for an hour; for pods, ask a client of the endpoint that pods use.
    pub fn presign(&self, bucket: &str, key: &str) -> Result<String> {
        let url = self.ask(&json!({"op": "presign", "bucket": bucket, "key": key}))?;
        Ok(url.as_str().context("no URL")?.to_owned())
    }

    /// The same server under another URL.
    #[must_use]
    pub fn with_endpoint(&self, endpoint: &str) -> Self {
        Self { endpoint: endpoint.to_owned(), ..self.clone() }
    }

    /// All objects whose keys begin with the prefix.
    pub fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<Listed>> {
        Ok(serde_json::from_value(self.ask(&json!({"op": "list", "bucket": bucket, "prefix": prefix}))?)?)
    }

    /// Removes objects.
    pub fn delete(&self, bucket: &str, keys: &[&str]) -> Result<()> {
        self.ask(&json!({"op": "delete", "bucket": bucket, "keys": keys})).map(drop)
    }

    fn ask(&self, operation: &Value) -> Result<Value> {
        let mut request = serde_json::to_vec(&json!({
            "endpoint": self.endpoint, "region": self.region, "access_key": self.access_key, "secret_key": self.secret_key,
            "operation": operation,
        }))?;
        request.push(b'\n');
        let answer = self.script.lock().map_err(|_| anyhow!("an earlier S3 request panicked"))?.exchange(&request)?;
        let answer: Answer = serde_json::from_str(&answer).with_context(|| format!("not an answer: {answer}"))?;
        match answer.error {
            Some(error) => bail!("{}: {error}", operation["op"].as_str().unwrap_or_default()),
            None => Ok(answer.result),
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    error: Option<String>,
}

/// One running script: starting Python takes longer than most requests.
struct Script {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Script {
    fn start(entry: &[String]) -> Result<Self> {
        let script = python::script("s3.py")?;
        let mut words = entry.iter().map(OsStr::new).chain([script.get_program()]).chain(script.get_args());
        let mut command = Command::new(words.next().context("an empty command")?);
        let mut child = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("the S3 script has no standard output")?);
        Ok(Self { child, requests, answers })
    }

    fn exchange(&mut self, request: &[u8]) -> Result<String> {
        self.requests
            .as_mut()
            .context("the S3 script was stopped")?
            .write_all(request)
            .context("the S3 script has ended")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // The end of its input ends the script.
        self.requests.take();
        self.child.wait().ok();
    }
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
