use aurora_compiler::fields::{Activation, Architecture, ModelFields, WeightsFields, WeightsHow};
use camino::{Utf8Path, Utf8PathBuf};

use super::*;
use crate::checkpoint::groups;
use crate::job::Files;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = Utf8PathBuf::try_from(folder.path().to_owned()).expect("UTF-8");
    (folder, path)
}

fn models() -> Vec<(&'static str, ModelFields)> {
    let bigcode = ModelFields {
        architecture: Architecture::GptBigcode,
        layers: 2,
        hidden: 16,
        heads: 4,
        kv_heads: 1,
        feed_forward: 64,
        context: 32,
        vocabulary: 64,
        activation: Activation::GeluTanh,
        norm_epsilon: "1e-5".parse().expect("a number"),
        rotary_base: None,
        tied_embeddings: true,
    };
    let llama = ModelFields {
        architecture: Architecture::Llama,
        kv_heads: 2,
        feed_forward: 48,
        activation: Activation::SwiGlu,
        rotary_base: Some("100000".parse().expect("a number")),
        ..bigcode.clone()
    };
    let each_head = ModelFields {
        kv_heads: 4,
        activation: Activation::Gelu,
        ..bigcode.clone()
    };
    let untied = ModelFields {
        kv_heads: 4,
        tied_embeddings: false,
        layers: 11,
        ..llama.clone()
    };
    vec![
        ("multi-query", bigcode),
        ("per head", each_head),
        ("grouped", llama),
        ("untied", untied),
    ]
}

/// Random weights of a model, as a checkpoint.
fn checkpoint(model: &ModelFields, out: &Utf8Path) -> Files {
    let how = WeightsHow::Random {
        seed: 7,
        std: "0.5".parse().expect("a number"),
    };
    let fields = WeightsFields {
        model: model.clone(),
        how,
    };
    weights(&fields, None, out, &|_| {}).expect("written");
    files(model, out)
}

fn files(model: &ModelFields, out: &Utf8Path) -> Files {
    groups(model)
        .iter()
        .map(|group| (group.weights(), out.join(group.weights())))
        .collect()
}

fn listed(folder: &Utf8Path) -> Vec<InputFile> {
    let mut found: Vec<InputFile> = folder
        .read_dir_utf8()
        .expect("a folder")
        .map(|entry| InputFile::from(entry.expect("an entry").path()))
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn import(model: &ModelFields, from: &Utf8Path, out: &Utf8Path) -> Result<(), WeightsError> {
    let fields = WeightsFields {
        model: model.clone(),
        how: WeightsHow::Import,
    };
    weights(&fields, Some(&listed(from)), out, &|_| {})
}

fn bytes(files: &Files) -> Vec<Vec<u8>> {
    files.values().map(|path| std::fs::read(path).expect("read")).collect()
}

#[test]
fn what_is_exported_is_imported_again_byte_for_byte() {
    for (name, model) in models() {
        for shard_bytes in [SHARD_BYTES, 9000] {
            let (_guard, root) = folder();
            let first = checkpoint(&model, &root.join("first"));
            let card = Card::default();
            let exported = export(&model, &first, None, &card, shard_bytes, &root.join("hf")).expect("exported");
            let several = exported.files.contains_key("model.safetensors.index.json");
            assert_eq!(several, shard_bytes == 9000, "{name}: {exported:?}");
            assert_eq!(
                read_config(&std::fs::read(root.join("hf/config.json")).expect("read")).expect("read"),
                model
            );
            import(&model, &root.join("hf"), &root.join("second")).expect(name);
            let second = files(&model, &root.join("second"));
            assert_eq!(bytes(&first), bytes(&second), "{name}");
            export(&model, &second, None, &card, shard_bytes, &root.join("again")).expect("exported");
            for (a, b) in listed(&root.join("hf")).iter().zip(listed(&root.join("again"))) {
                assert_eq!(a.name, b.name);
                assert_eq!(
                    std::fs::read(&a.path).expect("read"),
                    std::fs::read(&b.path).expect("read"),
                    "{}",
                    a.name
                );
            }
        }
    }
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let (_guard, root) = folder();
    let (_, model) = &models()[0];
    let files = checkpoint(model, &root.join("first"));
    std::fs::create_dir(root.join("full")).expect("made");
    std::fs::write(root.join("full/mine"), "mine").expect("written");
    let error = export(model, &files, None, &Card::default(), SHARD_BYTES, &root.join("full")).expect_err("full");
    assert!(error.to_string().contains("not empty"), "{error}");
    let missing = Files::new();
    export(model, &missing, None, &Card::default(), SHARD_BYTES, &root.join("new")).expect_err("no weights");
    assert!(
        !root.join("new").exists() && listed(&root).len() == 2,
        "no partial files remain"
    );
}

/// Each error in a published model, and its message.
#[test]
fn a_wrong_model_is_refused_with_place_and_cause() {
    let (_guard, root) = folder();
    let (_, model) = &models()[2];
    let made = checkpoint(model, &root.join("made"));
    export(model, &made, None, &Card::default(), 9000, &root.join("good")).expect("exported");
    let whole = root.join("good");
    let config = std::fs::read_to_string(whole.join("config.json")).expect("read");
    let index = std::fs::read_to_string(whole.join("model.safetensors.index.json")).expect("read");
    let shard = listed(&whole)
        .into_iter()
        .find(|file| file.name.starts_with("model-00001-of-"));
    let shard = shard.expect("several shards").name;
    let weights = std::fs::read(whole.join(&shard)).expect("read");
    let mut huge = weights.clone();
    huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let header = usize::try_from(u64::from_le_bytes(weights[..8].try_into().expect("eight"))).expect("small");
    let text = String::from_utf8(weights[8..8 + header].to_vec()).expect("JSON");
    let with_header = |text: &str| {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.extend(&weights[8 + header..]);
        bytes
    };
    let overlapping = with_header(&text.replacen("\"data_offsets\":[0,", "\"data_offsets\":[4,", 1));
    let mut infinite = weights.clone();
    infinite[8 + header..8 + header + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let cases: Vec<(&str, &str, Option<Vec<u8>>, &str)> = vec![
        (
            "no config",
            "config.json",
            None,
            "there is no `config.json` among the files",
        ),
        (
            "not JSON",
            "config.json",
            Some(b"{".to_vec()),
            "it is not a JSON object",
        ),
        (
            "no width",
            "config.json",
            Some(config.replace("hidden_size", "size").into_bytes()),
            "it does not have `hidden_size`",
        ),
        (
            "other width",
            "config.json",
            Some(
                config
                    .replace("\"intermediate_size\": 48", "\"intermediate_size\": 52")
                    .into_bytes(),
            ),
            "`feed_forward` is 52 in the file and 48 in the spec",
        ),
        (
            "huge width",
            "config.json",
            Some(
                config
                    .replace("\"hidden_size\": 16", "\"hidden_size\": 1e99")
                    .into_bytes(),
            ),
            "`hidden_size` is 1e+99, expected a whole number",
        ),
        (
            "biases",
            "config.json",
            Some(config.replace("\"mlp_bias\": false", "\"mlp_bias\": true").into_bytes()),
            "Aurora's llama has no biases",
        ),
        (
            "scaled positions",
            "config.json",
            Some(
                config
                    .replace(
                        "\"rope_scaling\": null",
                        "\"rope_scaling\": {\"rope_type\": \"llama3\"}",
                    )
                    .into_bytes(),
            ),
            "rotary positions are not scaled",
        ),
        (
            "another family",
            "config.json",
            Some(config.replace("\"llama\"", "\"mistral\"").into_bytes()),
            "`model_type` is `mistral`",
        ),
        (
            "a missing shard",
            shard.as_str(),
            None,
            "which is missing: fetch the complete model",
        ),
        (
            "a cut shard",
            &shard,
            Some(weights[..weights.len() - 4].to_vec()),
            "is not a complete safetensors file",
        ),
        (
            "an empty shard",
            &shard,
            Some(Vec::new()),
            "is not a complete safetensors file",
        ),
        (
            "a huge header",
            &shard,
            Some(huge),
            "is not a complete safetensors file",
        ),
        (
            "overlapping tensors",
            &shard,
            Some(overlapping),
            "is not a complete safetensors file",
        ),
        (
            "a number too large",
            &shard,
            Some(infinite),
            "has numbers that are not finite",
        ),
        (
            "an index of another place",
            "model.safetensors.index.json",
            Some(index.replace("model-00001", "../model-00001").into_bytes()),
            "which is missing",
        ),
        (
            "an index of a tensor too many",
            "model.safetensors.index.json",
            Some(
                index
                    .replacen("model.norm.weight", "model.abnorm.weight", 1)
                    .into_bytes(),
            ),
            "which does not have this tensor",
        ),
        (
            "no index",
            "model.safetensors.index.json",
            Some(b"[]".to_vec()),
            "is not a valid index of weights",
        ),
    ];
    for (number, (case, file, bytes, expected)) in cases.into_iter().enumerate() {
        let bad = root.join(format!("bad{number}"));
        std::fs::create_dir(&bad).expect("made");
        for good in listed(&whole) {
            std::fs::copy(&good.path, bad.join(&good.name)).expect("copied");
        }
        match bytes {
            Some(bytes) => std::fs::write(bad.join(file), bytes).expect("written"),
            None => std::fs::remove_file(bad.join(file)).expect("removed"),
        }
        let error = import(model, &bad, &root.join(format!("out{number}"))).expect_err(case);
        let text = crate::errors::chain(&error);
        assert!(text.contains(expected), "{case}: {text}");
        if case != "a number too large" {
            assert!(
                !root.join(format!("out{number}")).exists(),
                "{case}: nothing is written before everything is compared"
            );
        }
    }
}

#[test]
fn pickles_are_never_opened() {
    let (_guard, root) = folder();
    let (_, model) = &models()[0];
    std::fs::write(root.join("config.json"), write_config(model, None)).expect("written");
    std::fs::write(root.join("pytorch_model.bin"), "a pickle").expect("written");
    let error = import(model, &root, &root.join("out"))
        .expect_err("no weights")
        .to_string();
    assert!(error.contains("only pickles, which are never opened"), "{error}");
}

/// Files are not mapped: a file that another process shortens is an error, not the end of this process.
#[test]
fn a_file_that_is_shortened_while_it_is_read_is_an_error() {
    let (_guard, root) = folder();
    let (_, model) = &models()[0];
    let made = checkpoint(model, &root.join("made"));
    let hf = root.join("hf");
    export(model, &made, None, &Card::default(), SHARD_BYTES, &hf).expect("exported");
    let opened = HuggingFace::open(&listed(&hf)).expect("opened");
    std::fs::write(hf.join("model.safetensors"), "").expect("written");
    let error = opened
        .numbers("transformer.wte.weight")
        .expect_err("too short")
        .to_string();
    assert!(error.contains("model.safetensors"), "{error}");
}

/// A tied output layer may be stored too, if it is the same; masks are recomputed.
#[test]
fn tensors_that_transformers_recomputes_are_skipped() {
    use crate::checkpoint::{TensorInfo, write};
    let (_guard, root) = folder();
    let (_, model) = &models()[0];
    let made = checkpoint(model, &root.join("made"));
    let hf = root.join("hf");
    export(model, &made, None, &Card::default(), SHARD_BYTES, &hf).expect("exported");
    let words = HuggingFace::open(&listed(&hf))
        .expect("opened")
        .numbers("transformer.wte.weight")
        .expect("there");
    for (numbers, expected) in [(words.clone(), None), (vec![0.5; words.len()], Some("tied"))] {
        let alias = TensorInfo {
            name: "lm_head.weight".to_owned(),
            shape: vec![64, 16],
        };
        let mask = TensorInfo {
            name: "transformer.h.0.attn.bias".to_owned(),
            shape: vec![2],
        };
        let other = hf.join("other.safetensors");
        write(&other, &[alias, mask], [&numbers[..], &[0.0, 1.0]]).expect("written");
        let result = import(model, &hf, &root.join("out"));
        match expected {
            None => result.expect("imported"),
            Some(expected) => assert!(result.expect_err("differs").to_string().contains(expected)),
        }
    }
}

/// Aurora-M used 2048 of the 8192 published positions of StarCoderPlus.
#[test]
fn a_shorter_context_takes_the_first_positions() {
    let (_guard, root) = folder();
    let (_, model) = &models()[0];
    let made = checkpoint(model, &root.join("made"));
    export(model, &made, None, &Card::default(), SHARD_BYTES, &root.join("hf")).expect("exported");
    let short = ModelFields {
        context: 8,
        ..model.clone()
    };
    import(&short, &root.join("hf"), &root.join("short")).expect("imported");
    let long = ModelFields {
        context: 64,
        ..model.clone()
    };
    let error = import(&long, &root.join("hf"), &root.join("long"))
        .expect_err("too long")
        .to_string();
    assert!(
        error.contains("`context` is 32 in the file and 64 in the spec"),
        "{error}"
    );
}

mod gguf {
    use super::*;

    /// Writes the values of a GGUF file.
    #[derive(Default)]
    struct Writer(Vec<u8>);

    impl Writer {
        fn u32(&mut self, value: u32) -> &mut Self {
            self.0.extend(value.to_le_bytes());
            self
        }
        fn u64(&mut self, value: u64) -> &mut Self {
            self.0.extend(value.to_le_bytes());
            self
        }
        fn text(&mut self, text: &str) -> &mut Self {
            self.u64(text.len() as u64).0.extend(text.as_bytes());
            self
        }
        fn count(&mut self, key: &str, value: u32) -> &mut Self {
            self.text(key).u32(4).u32(value)
        }
        fn number(&mut self, key: &str, value: f32) -> &mut Self {
            self.text(key).u32(6);
            self.0.extend(value.to_le_bytes());
            self
        }
    }

    const FACTS: u64 = 10;

    fn head(tensors: u64) -> Writer {
        let mut to = Writer(b"GGUF".to_vec());
        to.u32(3)
            .u64(tensors)
            .u64(FACTS)
            .text("general.architecture")
            .u32(8)
            .text("llama");
        for (key, value) in [
            ("block_count", 1),
            ("context_length", 32),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("vocab_size", 8),
        ] {
            to.count(&format!("llama.{key}"), value);
        }
        to.number("llama.attention.layer_norm_rms_epsilon", 1e-5);
        to.number("llama.rope.freq_base", 10_000.0);
        to
    }

    /// Names, dimensions as GGUF has them, types.
    const TENSORS: [(&str, &[u64], u32); 11] = [
        ("token_embd.weight", &[32, 8], 8),
        ("blk.0.attn_norm.weight", &[32], 0),
        ("blk.0.attn_q.weight", &[32, 32], 0),
        ("blk.0.attn_k.weight", &[32, 16], 1),
        ("blk.0.attn_v.weight", &[32, 16], 30),
        ("blk.0.attn_output.weight", &[32, 32], 2),
        ("blk.0.ffn_norm.weight", &[32], 0),
        ("blk.0.ffn_gate.weight", &[32, 64], 3),
        ("blk.0.ffn_up.weight", &[32, 64], 3),
        ("blk.0.ffn_down.weight", &[64, 32], 3),
        ("output_norm.weight", &[32], 0),
    ];

    fn size(dimensions: &[u64], code: u32) -> u64 {
        let count: u64 = dimensions.iter().product();
        match code {
            0 => 4 * count,
            1 | 30 => 2 * count,
            2 => count / 32 * 18,
            3 => count / 32 * 20,
            _ => count / 32 * 34,
        }
    }

    /// A small model; `change` may damage the entry of a tensor.
    fn file(change: impl Fn(&str, &mut Vec<u64>, &mut u32, &mut u64)) -> Vec<u8> {
        let mut to = head(TENSORS.len() as u64);
        let mut offset = 0u64;
        for (name, dimensions, code) in TENSORS {
            let (mut dims, mut kind, mut at) = (dimensions.to_vec(), code, offset);
            change(name, &mut dims, &mut kind, &mut at);
            to.text(name).u32(dims.len() as u32);
            for dimension in &dims {
                to.u64(*dimension);
            }
            to.u32(kind).u64(at);
            offset += size(dimensions, code).next_multiple_of(32);
        }
        let Writer(mut bytes) = to;
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        // Any bytes are numbers; those of f16 scales stay small and finite.
        bytes.extend((0..offset).map(|byte| (byte % 23) as u8));
        bytes
    }

    fn plain(_: &str, _: &mut Vec<u64>, _: &mut u32, _: &mut u64) {}

    fn model() -> ModelFields {
        ModelFields {
            layers: 1,
            hidden: 32,
            feed_forward: 64,
            vocabulary: 8,
            rotary_base: Some("10000".parse().expect("a number")),
            ..models()[2].1.clone()
        }
    }

    fn imported(bytes: &[u8], out: &Utf8Path) -> Result<(), WeightsError> {
        let path = out.join("x.gguf");
        std::fs::write(&path, bytes).expect("written");
        let fields = WeightsFields {
            model: model(),
            how: WeightsHow::Gguf {
                member: "x.gguf".to_owned(),
            },
        };
        weights(&fields, Some(&[InputFile::from(path.as_path())]), out, &|_| {})
    }

    #[test]
    fn a_small_model_is_imported() {
        let (_guard, root) = folder();
        imported(&file(plain), &root).expect("imported");
        let files = files(&model(), &root);
        let group = &groups(&model())[1];
        let mut keys = Vec::new();
        crate::checkpoint::read(&files, &group.weights(), &group.tensors, |tensor, numbers| {
            if tensor.name.ends_with("k_proj.weight") {
                keys = numbers.to_vec();
            }
        })
        .expect("read");
        // Row 1 of a head of eight is the file's row 2: adjacent rows became halves.
        let path = root.join("x.gguf");
        let gguf = Gguf::open(&[InputFile::from(path.as_path())], "x.gguf").expect("opened");
        assert_eq!(gguf.model(), &model());
        assert_eq!(
            keys,
            gguf.numbers("model.layers.0.self_attn.k_proj.weight").expect("there")
        );
        // Another process shortens the file after it was opened.
        std::fs::write(&path, "GGUF").expect("written");
        let error = gguf
            .numbers("model.layers.0.self_attn.k_proj.weight")
            .expect_err("too short");
        assert!(error.to_string().starts_with("cannot read `x.gguf`"), "{error}");
    }

    #[test]
    fn a_hostile_file_is_refused_where_it_is_wrong() {
        let (_guard, root) = folder();
        let good = file(plain);
        let text = |case: &str, bytes: &[u8]| {
            let error = imported(bytes, &root).expect_err(case);
            crate::errors::chain(&error)
        };
        let with = |at: usize, value: &[u8]| {
            let mut bytes = good.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            bytes
        };
        // Each list is short enough for its bytes; all together would take forty times the file in memory.
        let lists = {
            let (each, mut bytes) = (5u64 << 20, b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".to_vec());
            for key in [b"a", b"b"] {
                bytes.extend(1u64.to_le_bytes());
                bytes.extend(key);
                bytes.extend([9u32.to_le_bytes(), 0u32.to_le_bytes()].concat());
                bytes.extend(each.to_le_bytes());
                bytes.resize(bytes.len() + each as usize, 0);
            }
            bytes
        };
        for (case, bytes, expected) in [
            ("lists", lists, "a list of 5242880 elements"),
            ("no GGUF", with(0, b"GGML"), "it does not begin with `GGUF`"),
            (
                "old",
                with(4, &1u32.to_le_bytes()),
                "GGUF version 1; supported are 2 and 3",
            ),
            ("big-endian", with(4, &3u32.to_be_bytes()), "supported are 2 and 3"),
            ("tensors", with(8, &u64::MAX.to_le_bytes()), "damaged at byte 24"),
            ("facts", with(16, &(1u64 << 40).to_le_bytes()), "damaged at byte 24"),
            (
                "a long key",
                with(24, &u64::MAX.to_le_bytes()),
                "a text of 18446744073709551615 bytes",
            ),
            (
                "a key beyond the end",
                with(24, &(1u64 << 25).to_le_bytes()),
                "it announces more than the",
            ),
            (
                "an unknown kind",
                with(24 + 8 + 20, &77u32.to_le_bytes()),
                "a value of unknown type 77",
            ),
            ("cut", good[..good.len() - 64].to_vec(), "extends beyond the"),
            (
                "overlap",
                file(|name, _, _, at| {
                    if name.ends_with("ffn_up.weight") {
                        *at = 0
                    }
                }),
                "overlap",
            ),
            (
                "far",
                file(|name, _, _, at| {
                    if name.ends_with("ffn_up.weight") {
                        *at = u64::MAX - 31
                    }
                }),
                "extends beyond the",
            ),
            (
                "crooked",
                file(|name, _, _, at| {
                    if name.ends_with("ffn_up.weight") {
                        *at += 1
                    }
                }),
                "not aligned to 32",
            ),
            (
                "large",
                file(|name, dims, _, _| {
                    if name.ends_with("ffn_up.weight") {
                        *dims = vec![1 << 40, 1 << 40]
                    }
                }),
                "extends beyond the",
            ),
            (
                "half a block",
                file(|name, dims, _, _| {
                    if name.ends_with("ffn_up.weight") {
                        *dims = vec![16, 128]
                    }
                }),
                "rows of 16 numbers, and blocks of 32",
            ),
            (
                "five dimensions",
                file(|name, dims, _, _| {
                    if name.ends_with("ffn_up.weight") {
                        *dims = vec![1; 5]
                    }
                }),
                "has 5 dimensions",
            ),
            (
                "another type",
                file(|name, _, kind, _| {
                    if name.ends_with("ffn_up.weight") {
                        *kind = 12
                    }
                }),
                "is stored as type 12; supported are F32, F16, BF16",
            ),
            (
                "another shape",
                file(|name, dims, _, _| {
                    if name.ends_with("ffn_up.weight") {
                        *dims = vec![64, 32]
                    }
                }),
                "has shape [32, 64], the model's has [64, 32]",
            ),
        ] {
            let found = text(case, &bytes);
            assert!(found.contains(expected), "{case}: {found}");
        }
        // Every truncation is detected, and none makes the reader allocate more than there is.
        for cut in (0..good.len()).step_by(7) {
            imported(&good[..cut], &root).expect_err("cut");
        }
    }
}
