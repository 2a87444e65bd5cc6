//! The commands about images, with Docker's and podman's flags.

mod archive;
mod inspect;
mod list;
mod login;
mod progress;
mod remove;
mod transfer;
mod unpack;

use image::{Connection, Reference};

pub(crate) use progress::Bars;
pub(crate) use transfer::obtain;

use crate::commands::Invocation;
use crate::flags::{Flag, Flags, flags};
use crate::table::{Arity, Command};

const QUIET: Flag = Flag::switch("quiet,q", "show no progress");
const PLATFORM: Flag = Flag::text(
    "platform",
    "os/architecture[/variant] of the image (default: this machine's)",
);
const TLS_VERIFY: Flag = Flag::switch(
    "tls-verify",
    "speak with registries over TLS only and verify their certificates; =false allows plain http (default: true, loopback may be plain)",
);
const FORMAT: Flag = Flag::text("format=table", "table or json");

const SOURCE: &str =
    "<image>  || oci:<directory>[:<tag>]  || oci-archive:<file>  || docker-archive:<file>";

/// The commands about images, in the order of the help.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        args: "[name]",
        arity: Arity::Between(0, 1),
        flags: flags![
            FORMAT,
            Flag::switch("digests", "show the digests of manifests"),
            Flag::switch("no-trunc", "show ids in full"),
            Flag::switch("quiet,q", "show only the ids"),
        ],
        description: "The size is what the image occupies in the store: configuration and compressed layers.",
        ..Command::of("images", "list images", list::images)
    },
    Command {
        args: "<container or image> [container or image...]",
        arity: Arity::AtLeast(1),
        flags: flags![
            Flag::switch(
                "referrers",
                "ask the registry what refers to the images: signatures, attestations, lists of what is in them",
            ),
            TLS_VERIFY,
        ],
        description: "Prints a JSON array with what is known of each, under Docker's names.",
        ..Command::of(
            "inspect",
            "show containers or images as JSON",
            inspect::inspect,
        )
    },
    Command {
        args: "",
        arity: Arity::Exactly(0),
        flags: flags![
            Flag::text("input,i", "read this file instead of standard input"),
            PLATFORM,
            QUIET,
        ],
        description: "The archive is what \"docker save\", \"podman save\" or \"coracle save\" have written, of either format.",
        ..Command::of(
            "load",
            "bring the images of an archive into the store",
            archive::load,
        )
    },
    Command {
        args: "[registry]",
        arity: Arity::Between(0, 1),
        flags: flags![
            Flag::text("username,u", "the user's name"),
            Flag::text(
                "password,p",
                "the password; --password-stdin does not show it to other users",
            ),
            Flag::switch("password-stdin", "read the password from standard input"),
            TLS_VERIFY,
        ],
        description: "\
Asks the registry (default: docker.io), and then keeps the credentials where podman,
buildah and skopeo find them as well, or gives them to the credential helper that is
configured there.",
        ..Command::of("login", "log in to a registry", login::login)
    },
    Command {
        args: "[registry]",
        arity: Arity::Between(0, 1),
        ..Command::of(
            "logout",
            "forget the credentials of a registry",
            login::logout,
        )
    },
    Command {
        args: "",
        arity: Arity::Exactly(0),
        flags: flags![
            Flag::switch("all,a", "remove every image that no container uses"),
            Flag::switch("force,f", "accepted for scripts: nothing is asked"),
        ],
        description: "\
Removes images without a name, unfinished downloads, and everything that no image
needs. What containers use stays.",
        ..Command::of("prune", "remove what is not used", remove::prune)
    },
    Command {
        args: SOURCE,
        flags: flags![
            PLATFORM,
            QUIET,
            TLS_VERIFY,
            Flag::switch(
                "unpack",
                "unpack the layers, so that the first container starts at once (default: true)",
            ),
        ],
        description: "\
Names are Docker's: \"alpine\" is docker.io/library/alpine:latest. A download that was
interrupted goes on where it stopped.",
        ..Command::of("pull", "bring an image into the store", transfer::pull)
    },
    Command {
        args: "<image> [destination]",
        arity: Arity::Between(1, 2),
        flags: flags![QUIET, TLS_VERIFY],
        description: "The destination is another reference than the image's own name.",
        ..Command::of("push", "bring an image to a registry", transfer::push)
    },
    Command {
        args: "<image> [image...]",
        arity: Arity::AtLeast(1),
        flags: flags![Flag::switch(
            "force,f",
            "remove all names of an image, also when a container uses it",
        )],
        description: "\
Takes a name away from an image. With its last name the image goes, and all that no
other image needs.",
        ..Command::of("rmi", "remove images", remove::rmi)
    },
    Command {
        args: "<image> [image...]",
        arity: Arity::AtLeast(1),
        flags: flags![
            Flag::text("format=docker-archive", "docker-archive or oci-archive"),
            Flag::text("output,o", "write to this file instead of standard output"),
            QUIET,
        ],
        ..Command::of("save", "write images to an archive", archive::save)
    },
    Command {
        args: "<image> <name> [name...]",
        arity: Arity::AtLeast(2),
        ..Command::of("tag", "give an image one more name", list::tag)
    },
    Command {
        args: "<image> <bundle>",
        arity: Arity::Exactly(2),
        flags: flags![PLATFORM, QUIET, TLS_VERIFY],
        description: "\
Makes a directory with the image's files (rootfs) and a config.json for it, which any
OCI runtime runs. An image that is not in the store is pulled first.",
        ..Command::of("unpack", "make a bundle of an image", unpack::unpack)
    },
];

/// How to speak with registries, as the flags say.
fn connection(flags: &Flags) -> Connection {
    Connection {
        tls_verify: flags.switch("tls-verify").unwrap_or(true),
        ..Connection::default()
    }
}

/// The images that the arguments name, each with the one name that it was asked for by, or all when it was its id.
fn named(invocation: &Invocation<'_>, store: &image::Store) -> image::Result<Vec<image::Image>> {
    let find = |name: &String| {
        let mut image = store.find(name)?;
        if let Some(asked) = name_of(&image, name) {
            image.names = vec![asked];
        }
        Ok(image)
    };
    invocation.flags.args.iter().map(find).collect()
}

/// The name of an image that somebody means who writes `text`; none when it is an id.
fn name_of(image: &image::Image, text: &str) -> Option<String> {
    let spelled = [text.to_owned(), format!("localhost/{text}")];
    let references = spelled
        .iter()
        .filter_map(|text| text.parse::<Reference>().ok());
    references
        .map(|reference| reference.to_string())
        .find(|name| image.names.contains(name))
}
