//! Objects of an S3 server, with any key whatever, through boto3 in the pinned Python environment (process I/O).
//!
//! An independent client on purpose: what the tests write is not written by the code that they test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::python;

/// An S3 server and who we are there.
#[derive(Debug, Clone)]
pub struct S3 {
    /// Its URL as this process reaches it.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub region: String,
    /// The identity's public part.
    pub access_key: String,
    /// The identity's secret part.
    pub secret_key: String,
    /// Words before the command that speaks to the server, for one inside the cluster's network.
    pub entry: Vec<String>,
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

    /// All objects whose keys begin with the prefix.
    pub fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<Listed>> {
        Ok(serde_json::from_value(self.ask(&json!({"op": "list", "bucket": bucket, "prefix": prefix}))?)?)
    }

    /// Removes objects.
    pub fn delete(&self, bucket: &str, keys: &[&str]) -> Result<()> {
        self.ask(&json!({"op": "delete", "bucket": bucket, "keys": keys})).map(drop)
    }

    fn ask(&self, operation: &Value) -> Result<Value> {
        let script = python::script("s3.py")?;
        let mut command = match self.entry.split_first() {
            None => script,
            Some((first, rest)) => {
                let mut entered = Command::new(first);
                entered.args(rest).arg(script.get_program()).args(script.get_args());
                entered
            }
        };
        let request = json!({
            "endpoint": self.endpoint, "region": self.region, "access_key": self.access_key, "secret_key": self.secret_key,
            "operations": [operation],
        });
        let mut answers: Vec<Value> = serde_json::from_value(python::exchange(&mut command, &request)?)?;
        answers.pop().context("the script gave no answer")
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
