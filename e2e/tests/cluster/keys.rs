//! Keys that break careless clients: neighbours, odd characters, markers, empty and very many files (network I/O).

use std::fs;
use std::path::Path;

use anyhow::Result;
use checkpoint_operator_e2e::cache::build_once;
use checkpoint_operator_e2e::seaweedfs;
use serde_json::json;

use crate::support::{HASHES_OF_VOLUME, Scene, hashes_of, shared, text};

/// The path becomes a volume with exactly the files of the folder.
async fn becomes(scene: &Scene, path: &str, claim: &str, folder: &Path) -> Result<()> {
    scene.checkpoint(claim, scene.s3_spec(path, &[claim])).await?;
    assert_eq!(scene.output_of(&format!("{claim}-reader"), claim, HASHES_OF_VOLUME).await?, hashes_of(folder)?);
    let ready = scene.ready(claim).await?;
    assert_eq!(text(&ready.data, "/status/source/uri"), format!("s3://{}/{path}", scene.bucket()));
    Ok(())
}

/// A folder with these files, made once; each holds its own name and some more.
fn folder(name: &str, files: &[&str]) -> Result<std::path::PathBuf> {
    let inputs: Vec<_> = files.iter().map(|file| file.as_bytes()).collect();
    let made = build_once(&format!("keys-{name}"), &inputs, |folder| {
        for file in files {
            let path = folder.join("files").join(file);
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            let content = if file.contains("empty") { String::new() } else { format!("content of {file}\n") };
            fs::write(path, content)?;
        }
        Ok(())
    })?;
    Ok(made.join("files"))
}

#[tokio::test]
async fn a_sibling_with_the_same_beginning_is_not_taken_along() -> Result<()> {
    shared("keys-siblings", async |scene| {
        let (one, ten) = (folder("one", &["a.txt", "deep/b.txt"])?, folder("ten", &["c.txt"])?);
        scene.s3.put_folder(scene.bucket(), "run/step-1", &one)?;
        scene.s3.put_folder(scene.bucket(), "run/step-10", &ten)?;
        scene.put("run", &[("step-1.json", b"{}"), ("step-1 copy/a.txt", b"x")])?;
        becomes(scene, "run/step-1", "one", &one).await?;
        becomes(scene, "run/step-10", "ten", &ten).await?;
        // A beginning of a folder's name is no folder, and a file is none either.
        for (name, path) in [("beginning", "run/step"), ("longer", "run/step-1/a"), ("deeper", "run/step-10/deep")] {
            scene.checkpoint(name, scene.s3_spec(path, &[name])).await?;
            let found = scene.condition(name, "SourceReachable", "False", "NotFound").await?;
            assert!(found.message.contains(path), "{}", found.message);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn any_character_in_a_key_is_kept() -> Result<()> {
    shared("keys-characters", async |scene| {
        let files = [
            "with space.txt",
            " leading and trailing ",
            "100%.txt",
            "per%20cent.txt",
            "%2e%2e%2fescape.txt",
            "plus+plus.txt",
            "ünïcode-日本-🦀.txt",
            "e\u{301} decomposed.txt",
            "é composed.txt",
            "hash#question?amp&equals=.txt",
            "quotes'\"`.txt",
            "semi;colon,comma@at:colon!$()[]{}~^|.txt",
            "-dash-first.txt",
            ".hidden",
            "...",
            "folder with space/100%/a+b/ü.txt",
            "folder with space/100%/a b/ü.txt",
        ];
        let folder = folder("characters", &files)?;
        let path = "runs & more/100% + ü日本 #1=?/step 1";
        scene.s3.put_folder(scene.bucket(), path, &folder)?;
        becomes(scene, path, "odd", &folder).await
    })
    .await
}

#[tokio::test]
async fn the_path_of_a_uri_is_taken_as_it_is() -> Result<()> {
    shared("keys-uri", async |scene| {
        let folder = folder("uri", &["a b.txt", "a%20b.txt", "a+b.txt"])?;
        let path = "100%/a%20b +ü";
        scene.s3.put_folder(scene.bucket(), path, &folder)?;
        scene.put("100%/a b  ü", &[("decoded.txt", b"must not be taken")])?;
        let mut spec = scene.s3_spec("", &["odd"]);
        spec["path"] = json!(format!("s3://{}/{path}", scene.bucket()));
        if let Some(s3) = spec["storage"]["s3"].as_object_mut() {
            s3.remove("bucket");
        }
        scene.checkpoint("odd", spec).await?;
        assert_eq!(scene.output_of("reader", "odd", HASHES_OF_VOLUME).await?, hashes_of(&folder)?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn markers_are_left_out_and_empty_files_are_kept() -> Result<()> {
    shared("keys-markers", async |scene| {
        let folder = folder("markers", &["a.txt", "empty.txt", "sub/empty", "sub/deep/b.txt"])?;
        scene.s3.put_folder(scene.bucket(), "model", &folder)?;
        scene.put("model", &[("", b""), ("sub/", b""), ("sub/deep/", b""), ("nothing/", b"")])?;
        becomes(scene, "model", "model", &folder).await?;
        let sizes = "cd /volume; find . -type f -size 0 -not -path './.checkpoint/*' | sort; test ! -e nothing; stat -c '%a %n' a.txt sub sub/deep";
        let printed = scene.output_of("sizes", "model", sizes).await?;
        assert_eq!(printed, "./empty.txt\n./sub/empty\n644 a.txt\n755 sub\n755 sub/deep\n");
        Ok(())
    })
    .await
}

/// The root of a bucket, and a path that ends in a slash.
#[tokio::test]
async fn the_root_of_a_bucket_is_a_checkpoint_too() -> Result<()> {
    shared("keys-root", async |scene| {
        let folder = folder("root", &["a.txt", "sub/b.txt"])?;
        scene.s3.put_folder(scene.bucket(), "", &folder)?;
        scene.checkpoint("root", scene.s3_spec("", &["root"])).await?;
        assert_eq!(scene.output_of("reader", "root", HASHES_OF_VOLUME).await?, hashes_of(&folder)?);
        scene.checkpoint("slash", scene.s3_spec("sub/", &["slash"])).await?;
        let printed = scene.output_of("slash-reader", "slash", "cd /volume; cat b.txt").await?;
        assert_eq!(printed, "content of sub/b.txt\n");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn five_thousand_small_files_arrive() -> Result<()> {
    shared("keys-many", async |scene| {
        let names: Vec<_> = (0..5000).map(|number| format!("{:02}/{number:04}.txt", number % 40)).collect();
        let folder = folder("many", &names.iter().map(String::as_str).collect::<Vec<_>>())?;
        // A connection of its own: the shared one would keep all other tests waiting.
        seaweedfs::client(&scene.cluster)?.put_folder(scene.bucket(), "many", &folder)?;
        becomes(scene, "many", "many", &folder).await?;
        let status = scene.ready("many").await?.data["status"].clone();
        assert_eq!(status["source"]["files"], json!(5000));
        Ok(())
    })
    .await
}
