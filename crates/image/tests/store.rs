//! Archives and layouts on their way into the store, and what leaves it again.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use image::{Digest, Format, Image, Kind, PullOptions, Source, Store, media_type};
use nix::sys::stat::Mode;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// A directory with a store and room for archives.
struct Place {
    directory: TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        Place { directory, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn archive(&self, files: &[(&str, Vec<u8>)]) -> PathBuf {
        let path = self.path("archive.tar");
        let mut tar = Builder::new(fs::File::create(&path).unwrap());
        for (name, content) in files {
            append(&mut tar, EntryType::Regular, name, content, None);
        }
        tar.finish().unwrap();
        path
    }

    fn load(&self, archive: &Path) -> image::Result<Vec<Image>> {
        image::load(&self.store, archive, &PullOptions::default(), &())
    }

    #[track_caller]
    fn refuses(&self, archive: &Path, words: &str) {
        let error = self.load(archive).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(self.store.images().unwrap().is_empty());
        assert!(self.names("images/partial").is_empty());
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path("store").join(directory)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn has(&self, digest: &Digest) -> bool {
        self.names("images/blobs/sha256")
            .contains(&digest.hex().to_owned())
    }
}

fn append(
    tar: &mut Builder<fs::File>,
    kind: EntryType,
    name: &str,
    content: &[u8],
    link: Option<&str>,
) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    if let Some(link) = link {
        header.set_link_name(link).unwrap();
    }
    // As it is: the crate's own way to set a name refuses what a hostile archive has.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

fn layer(number: u8) -> Vec<u8> {
    vec![number; 1000]
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids }
    });
    config.to_string().into_bytes()
}

/// An image as `docker save` writes it, of layers with these numbers.
fn saved(numbers: &[u8], tags: Value) -> Vec<(String, Vec<u8>)> {
    let layers: Vec<_> = numbers.iter().map(|number| layer(*number)).collect();
    let paths: Vec<_> = numbers
        .iter()
        .map(|number| format!("{number}/layer.tar"))
        .collect();
    let manifest = json!([{ "Config": "config.json", "RepoTags": tags, "Layers": paths }]);
    let mut files = vec![
        ("config.json".to_owned(), config(&layers)),
        (
            "manifest.json".to_owned(),
            manifest.to_string().into_bytes(),
        ),
    ];
    files.extend(paths.into_iter().zip(layers));
    files
}

fn borrowed(files: &[(String, Vec<u8>)]) -> Vec<(&str, Vec<u8>)> {
    files
        .iter()
        .map(|(name, content)| (name.as_str(), content.clone()))
        .collect()
}

/// The files of an image layout with one image.
fn layout(name: Option<&str>) -> Vec<(String, Vec<u8>)> {
    let (layer, config) = (layer(1), config(&[layer(1)]));
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST,
        "config": { "mediaType": media_type::CONFIG, "digest": Digest::of(&config), "size": config.len() },
        "layers": [{ "mediaType": media_type::LAYER, "digest": Digest::of(&layer), "size": layer.len() }]
    });
    let manifest = manifest.to_string().into_bytes();
    let mut entry = json!({ "mediaType": media_type::MANIFEST, "digest": Digest::of(&manifest), "size": manifest.len() });
    if let Some(name) = name {
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
    }
    let index = json!({ "schemaVersion": 2, "manifests": [entry] })
        .to_string()
        .into_bytes();
    let blob = |content: Vec<u8>| {
        (
            format!("blobs/sha256/{}", Digest::of(&content).hex()),
            content,
        )
    };
    let marker = br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec();
    vec![
        ("oci-layout".into(), marker),
        blob(layer),
        blob(config),
        blob(manifest),
        ("index.json".into(), index),
    ]
}

#[test]
fn docker_archives_get_a_manifest() {
    let place = Place::new();
    let archive = place.archive(&borrowed(&saved(
        &[1, 2, 1],
        json!(["app:1", "quay.io/team/app:2"]),
    )));
    let [image] = <[Image; 1]>::try_from(place.load(&archive).unwrap()).unwrap();
    assert_eq!(
        image.names,
        ["docker.io/library/app:1", "quay.io/team/app:2"]
    );
    let digests: Vec<_> = image
        .layers
        .iter()
        .map(|layer| layer.digest.clone())
        .collect();
    assert_eq!(digests, [1, 2, 1].map(|number| Digest::of(&layer(number))));
    assert_eq!(image.id(), &Digest::of(&config(&[1, 2, 1].map(layer))));
    // The same again is the same image.
    assert_eq!(place.load(&archive).unwrap()[0].manifest, image.manifest);
    assert_eq!(place.store.find("app:1").unwrap().id(), image.id());
    assert_eq!(
        place
            .store
            .find(&image.id().hex()[..12])
            .unwrap()
            .names
            .len(),
        2
    );
}

#[test]
fn layers_may_be_links() {
    let place = Place::new();
    let path = place.path("links.tar");
    let mut tar = Builder::new(fs::File::create(&path).unwrap());
    for (name, content) in saved(&[1, 2], json!(null)) {
        match name.as_str() {
            "1/layer.tar" => append(
                &mut tar,
                EntryType::Symlink,
                &name,
                b"",
                Some("../store/real.tar"),
            ),
            "2/layer.tar" => append(
                &mut tar,
                EntryType::Link,
                &name,
                b"",
                Some("./store/other.tar"),
            ),
            _ => append(&mut tar, EntryType::Regular, &name, &content, None),
        }
    }
    append(
        &mut tar,
        EntryType::Regular,
        "store/real.tar",
        &layer(1),
        None,
    );
    append(
        &mut tar,
        EntryType::Regular,
        "./store/other.tar",
        &layer(2),
        None,
    );
    tar.finish().unwrap();
    drop(tar);
    let images = place.load(&path).unwrap();
    assert_eq!(images[0].layers.len(), 2);
    assert!(images[0].names.is_empty());
}

#[test]
fn archives_of_layouts_keep_their_digests() {
    for (name, names) in [
        (None, vec![]),
        (Some("v1"), vec!["localhost/archive:v1"]),
        (Some("quay.io/a/b:c"), vec!["quay.io/a/b:c"]),
        (Some("not a name/"), vec![]),
    ] {
        let place = Place::new();
        let files = layout(name);
        let images = place.load(&place.archive(&borrowed(&files))).unwrap();
        assert_eq!(images[0].names, names);
        assert_eq!(images[0].manifest.digest, Digest::of(&files[3].1));
    }
}

#[test]
fn bad_archives_are_refused() {
    let place = Place::new();
    place.refuses(&place.archive(&[]), "no archive of images");
    place.refuses(&place.archive(&[("../x", vec![1])]), "leads out of it");
    fs::write(place.path("text"), vec![b'x'; 4096]).unwrap();
    place.refuses(&place.path("text"), "not a tar archive");

    let change = |files: Vec<(String, Vec<u8>)>, name: &str, content: Option<Vec<u8>>| {
        let files = files
            .into_iter()
            .filter_map(|(path, old)| match path == name {
                true => content.clone().map(|new| (path, new)),
                false => Some((path, old)),
            });
        place.archive(&borrowed(&files.collect::<Vec<_>>()))
    };
    let docker = || saved(&[1, 2], json!(["app:1"]));
    place.refuses(
        &change(docker(), "2/layer.tar", None),
        "no file \"2/layer.tar\"",
    );
    place.refuses(
        &change(docker(), "2/layer.tar", Some(layer(3))),
        "as its configuration says",
    );
    place.refuses(
        &change(docker(), "config.json", Some(config(&[layer(1)]))),
        "it has 2 layers, its configuration 1",
    );
    place.refuses(
        &change(docker(), "config.json", Some(b"{".to_vec())),
        "configuration config.json",
    );
    place.refuses(
        &change(docker(), "manifest.json", Some(b"{}".to_vec())),
        "manifest.json",
    );
    place.refuses(
        &change(docker(), "manifest.json", Some(vec![b' '; 5 << 20])),
        "too large",
    );
    place.refuses(
        &place.archive(&borrowed(&saved(&[1], json!(["No Name"])))),
        "invalid reference",
    );

    // What came before the error is still there, for whoever tries again.
    place.store.prune(true, &[]).unwrap();
    let files = layout(Some("v1"));
    for (name, words) in [
        (&files[1].0, "lacks blob"),
        (&files[2].0, "lacks blob"),
        (&files[3].0, "is not in the image store"),
    ] {
        place.refuses(&change(layout(Some("v1")), name, None), words);
        place.store.prune(true, &[]).unwrap();
        place.refuses(
            &change(layout(Some("v1")), name, Some(b"other".to_vec())),
            "another digest",
        );
        place.store.prune(true, &[]).unwrap();
    }
    let cut = place.archive(&borrowed(&files));
    let file = fs::OpenOptions::new().write(true).open(&cut).unwrap();
    file.set_len(700).unwrap();
    place.refuses(&cut, "");
}

#[test]
fn links_in_circles_and_endless_headers_end() {
    let place = Place::new();
    let path = place.path("circle.tar");
    let mut tar = Builder::new(fs::File::create(&path).unwrap());
    for (name, content) in saved(&[1], json!([])).into_iter().take(2) {
        append(&mut tar, EntryType::Regular, &name, &content, None);
    }
    append(
        &mut tar,
        EntryType::Symlink,
        "1/layer.tar",
        b"",
        Some("other"),
    );
    append(
        &mut tar,
        EntryType::Symlink,
        "1/other",
        b"",
        Some("layer.tar"),
    );
    tar.finish().unwrap();
    drop(tar);
    place.refuses(&path, "circles");

    let path = place.path("long.tar");
    let mut tar = Builder::new(fs::File::create(&path).unwrap());
    append(
        &mut tar,
        EntryType::GNULongName,
        "././@LongLink",
        &vec![b'a'; 8 << 20],
        None,
    );
    append(&mut tar, EntryType::Regular, "x", b"", None);
    tar.finish().unwrap();
    drop(tar);
    place.refuses(&path, "a header is too long");

    let path = place.path("sparse.tar");
    let mut tar = Builder::new(fs::File::create(&path).unwrap());
    append(&mut tar, EntryType::GNUSparse, "x", b"", None);
    tar.finish().unwrap();
    drop(tar);
    place.refuses(&path, "");
}

fn write_layout(directory: &Path, files: &[(String, Vec<u8>)]) {
    fs::create_dir_all(directory.join("blobs/sha256")).unwrap();
    for (name, content) in files {
        fs::write(directory.join(name), content).unwrap();
    }
}

fn pull(place: &Place, source: &str) -> image::Result<Image> {
    image::pull(
        &place.store,
        &source.parse::<Source>()?,
        &PullOptions::default(),
        &(),
    )
}

#[test]
fn layouts_are_pulled_by_tag() {
    let place = Place::new();
    let directory = place.path("lay");
    write_layout(&directory, &layout(Some("v1")));
    for source in [
        format!("oci:{}", directory.display()),
        format!("oci:{}:v1", directory.display()),
    ] {
        assert_eq!(pull(&place, &source).unwrap().names, ["localhost/lay:v1"]);
    }
    let error = pull(&place, &format!("oci:{}:v2", directory.display())).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("only: v1"), "{error}");
}

#[test]
fn a_layout_that_lies_or_blocks_is_refused() {
    let files = layout(Some("v1"));
    for (name, _) in &files[1..] {
        let place = Place::new();
        let directory = place.path("lay");
        write_layout(&directory, &files);
        let path = directory.join(name);
        let source = format!("oci:{}", directory.display());
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = pull(&place, &source).unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(pull(&place, &source).is_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "other").unwrap();
        assert!(pull(&place, &source).is_err());
        assert!(place.store.images().unwrap().is_empty());
    }
}

#[test]
fn what_is_saved_can_be_loaded() {
    let from = Place::new();
    let archive = from.archive(&borrowed(&saved(&[1, 2], json!(["app:1", "app:2"]))));
    let images = from.load(&archive).unwrap();
    for format in [Format::OciArchive, Format::DockerArchive] {
        let to = Place::new();
        let path = to.path("saved.tar");
        image::save(
            &from.store,
            &images,
            format,
            &mut fs::File::create(&path).unwrap(),
        )
        .unwrap();
        let loaded = to.load(&path).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!(loaded[0].names, images[0].names);
        assert_eq!(loaded[0].id(), images[0].id());
        let source = match format {
            Format::OciArchive => Source::OciArchive(path.clone()),
            Format::DockerArchive => Source::DockerArchive(path.clone()),
        };
        let pulled = image::pull(&to.store, &source, &PullOptions::default(), &()).unwrap();
        assert_eq!(pulled.manifest, loaded[0].manifest);
        let mut bytes = Vec::new();
        to.store
            .blob(&pulled.layers[1].digest)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        assert_eq!(bytes, layer(2));
    }
}

/// Two images that share layer 1.
fn two() -> (Place, Image, Image) {
    let place = Place::new();
    let first = place
        .load(&place.archive(&borrowed(&saved(&[1, 2], json!(["a:1", "a:2"])))))
        .unwrap();
    let second = place
        .load(&place.archive(&borrowed(&saved(&[1, 3], json!(["b"])))))
        .unwrap();
    (place, first[0].clone(), second[0].clone())
}

#[test]
fn an_image_goes_with_its_last_name_and_shared_layers_stay() {
    let (place, first, second) = two();
    let by_id = place
        .store
        .remove(&first.id().hex()[..8], false, &[])
        .unwrap_err();
    assert_eq!(by_id.kind(), Kind::InUse);
    let removed = place.store.remove("a:1", false, &[]).unwrap();
    assert_eq!(
        (removed.untagged, removed.deleted),
        (vec!["docker.io/library/a:1".to_owned()], None)
    );
    assert!(place.has(&Digest::of(&layer(2))));
    let removed = place.store.remove("a:2", false, &[]).unwrap();
    assert_eq!(removed.deleted.as_ref(), Some(first.id()));
    assert!(
        !place.has(&Digest::of(&layer(2)))
            && !place.has(first.id())
            && !place.has(&first.manifest.digest)
    );
    assert!(place.has(&Digest::of(&layer(1))) && place.has(second.id()));
    assert_eq!(
        place.store.remove("a:2", false, &[]).unwrap_err().kind(),
        Kind::NotFound
    );
}

#[test]
fn what_containers_use_stays() {
    let (place, first, second) = two();
    let in_use = [first.manifest.digest.clone()];
    let id = first.id().to_string();
    assert_eq!(
        place.store.remove(&id, true, &in_use).unwrap().deleted,
        None
    );
    assert!(place.has(&Digest::of(&layer(2))));
    let pruned = place.store.prune(true, &in_use).unwrap();
    assert_eq!(pruned.images.len(), 1);
    assert_eq!(pruned.images[0].deleted.as_ref(), Some(second.id()));
    assert_eq!(place.store.images().unwrap()[0].names, [""; 0]);
    assert_eq!(place.store.find(&id).unwrap().id(), first.id());
    assert!(place.store.prune(false, &[]).unwrap().reclaimed > 1000);
    assert!(place.names("images/blobs/sha256").is_empty());
}

#[test]
fn unpacked_layers_go_with_their_images() {
    let (place, ..) = two();
    let name = |state: &str, number| format!("{state}-{}", Digest::of(&layer(number)).hex());
    let [used, unused] =
        [[1, 2], [3, 4]].map(|numbers| numbers.map(|number| name("sha256", number)));
    // What is in them takes an unpacker to remove, which this program is not: see the tests of unpacking.
    for name in used
        .iter()
        .chain(&unused)
        .chain(&[name("new", 5), "someone's".into()])
    {
        fs::create_dir_all(place.path("store/layers").join(name)).unwrap();
    }
    place.store.remove("b", false, &[]).unwrap();
    let mut left = vec!["someone's".to_owned()];
    left.extend(used);
    left.sort();
    assert_eq!(place.names("layers"), left);
}

#[test]
fn a_name_moves_to_the_newer_image() {
    let (place, first, second) = two();
    place.store.tag(&second, &"a:1".parse().unwrap()).unwrap();
    assert_eq!(place.store.find("a:1").unwrap().id(), second.id());
    place.store.tag(&second, &"a:2".parse().unwrap()).unwrap();
    let id = first.id().to_string();
    assert!(
        place.store.find(&id).unwrap().names.is_empty(),
        "it has lost its last name and is still there"
    );
    assert_eq!(
        place
            .store
            .find(&format!("a@{}", second.manifest.digest))
            .unwrap()
            .id(),
        second.id()
    );
    assert!(
        place
            .store
            .find(&format!("c@{}", second.manifest.digest))
            .is_err()
    );
    let pruned = place.store.prune(false, &[]).unwrap();
    assert_eq!(pruned.images[0].deleted.as_ref(), Some(first.id()));
}

#[test]
fn unfinished_downloads_are_pruned_and_a_store_can_be_opened_again() {
    let (place, ..) = two();
    fs::write(
        place.path("store/images/partial").join("0".repeat(64)),
        vec![0; 500],
    )
    .unwrap();
    assert_eq!(place.store.prune(false, &[]).unwrap().reclaimed, 500);
    let again = Store::open(&place.path("store")).unwrap();
    assert_eq!(again.images().unwrap().len(), 2);
    fs::write(place.path("store/images/index.json"), "{").unwrap();
    let error = again.images().unwrap_err();
    assert!(error.to_string().contains("list of images"), "{error}");
}
