//! What holds for any folder.

use proptest::prelude::*;

use super::*;

fn any_content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(tensors(&[("a", 2), ("b", 1)])),
        Just(tensors(&[("c", 2)])),
        Just(index(4, &[("a", "model-00001-of-00002.safetensors"), ("c", "model-00002-of-00002.safetensors")])),
        Just(b"{\"model_type\": \"x\", \"global_step\": 3}".to_vec()),
        Just(b"\x80\x02}.".to_vec()),
        Just(b"version https://git-lfs.github.com/spec/v1\n".to_vec()),
        Just(vec![]),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn any_folder() -> impl Strategy<Value = Folder> {
    let names = vec![
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model-00001-of-00003.safetensors",
        "model.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "adapter_config.json",
        "trainer_state.json",
        ".metadata.json",
        "optimizer.pt",
        "training_args.bin",
        "README.md",
        "sub/x.safetensors",
        "checkpoint-3/config.json",
        "a b%+é",
    ];
    prop::collection::btree_map(prop::sample::select(names), any_content(), 0..8)
        .prop_map(|files| Folder(files.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect()))
}

fn any_depth() -> impl Strategy<Value = Depth> {
    prop::sample::select(vec![Depth::Listing, Depth::Headers, Depth::Content])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn order_does_not_matter(folder in any_folder(), shuffle in any::<u64>(), seed in any::<u64>(), depth in any_depth()) {
        let validation = Validation { depth, required_files: vec!["tokenizer.json".into()], ..Validation::default() };
        let files = folder.files();
        let (first, cost) = drive(Judge::new(files.clone(), &validation, &[]), &files, &folder, 1);
        let mut shuffled = files;
        let length = shuffled.len().max(1);
        shuffled.rotate_left(usize::try_from(shuffle % length as u64).unwrap());
        if shuffle % 2 == 0 {
            shuffled.reverse();
        }
        let (second, again) = drive(Judge::new(shuffled.clone(), &validation, &[]), &shuffled, &folder, seed);
        prop_assert_eq!(&first, &second);
        prop_assert_eq!(cost, again);
        prop_assert!(depth > Depth::Listing || cost.reads == 0);
        prop_assert!(cost.reads <= 2 * shuffled.len() as u64 + 16);
        prop_assert_eq!(first.is_good(), !first.findings.iter().any(|finding| finding.fatal));
        prop_assert!(first.message.len() <= 1024 && !first.message.is_empty());
    }

    #[test]
    fn any_names_are_judged(paths in prop::collection::btree_set("[-a-z0-9_./é]{1,40}", 0..10)) {
        let folder = Folder(paths.into_iter().map(|path| (path, vec![1, 2, 3])).collect());
        for depth in [Depth::Listing, Depth::Headers] {
            folder.judge_with(&allowing(depth), &[]);
        }
    }
}
