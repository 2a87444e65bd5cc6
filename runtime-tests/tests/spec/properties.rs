//! The properties of a configuration, from the types that the runtime parses it with: a deserializer that has no document, and answers
//! every type with the first thing that it takes.

use std::fmt::Display;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

/// What is for other platforms.
const NOT_LINUX: [&str; 5] = ["solaris", "windows", "vm", "zos", "freebsd"];

/// Texts that are not just any.
const TEXTS: &[(&str, &str)] = &[("process.capabilities", "CAP_KILL")];

/// Every property of config.json on Linux: `linux.resources.pids.limit`, with `[]` for an entry of a list and `*` for one of a map.
pub(crate) fn all() -> Vec<String> {
    let mut found = Vec::new();
    let tracer = Tracer {
        path: String::new(),
        found: &mut found,
    };
    let spec: Result<oci_spec::runtime::Spec, Failure> = de::Deserialize::deserialize(tracer);
    spec.expect("every type takes what it is given");
    found.sort();
    found
}

struct Tracer<'a> {
    path: String,
    found: &'a mut Vec<String>,
}

impl Tracer<'_> {
    fn at(&mut self, path: String) -> Tracer<'_> {
        Tracer {
            path,
            found: self.found,
        }
    }

    /// What has nothing below it is a property.
    fn leaf(&mut self) {
        self.found
            .push(self.path.trim_start_matches('.').to_owned());
    }
}

#[derive(Debug)]
struct Failure(String);

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl de::Error for Failure {
    fn custom<T: Display>(text: T) -> Self {
        Failure(text.to_string())
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident),*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failure> {
            self.leaf();
            visitor.$visit(0)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Tracer<'_> {
    type Error = Failure;

    numbers!(deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32, deserialize_i64 visit_i64,
        deserialize_u8 visit_u8, deserialize_u16 visit_u16, deserialize_u32 visit_u32, deserialize_u64 visit_u64);

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failure> {
        self.leaf();
        visitor.visit_bool(false)
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failure> {
        self.leaf();
        let path = self.path.trim_start_matches('.');
        let known = TEXTS.iter().find(|(place, _)| path.starts_with(place));
        visitor.visit_str(known.map_or("0", |(_, text)| text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    /// A type with a form of its own: a text.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let path = format!("{}[]", self.path);
        visitor.visit_seq(Entries {
            keys: vec![""].into_iter(),
            path,
            tracer: self,
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        let path = self.path.clone();
        visitor.visit_map(Entries {
            keys: vec!["*"].into_iter(),
            path,
            tracer: self,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        let keys: Vec<_> = fields
            .iter()
            .copied()
            .filter(|name| !NOT_LINUX.contains(name))
            .collect();
        let path = self.path.clone();
        visitor.visit_map(Entries {
            keys: keys.into_iter(),
            path,
            tracer: self,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.leaf();
        visitor.visit_enum(First(variants[0]))
    }

    forward_to_deserialize_any! { i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any }
}

/// The fields of a struct, or the one entry of a list or map.
struct Entries<'a> {
    keys: std::vec::IntoIter<&'static str>,
    path: String,
    tracer: Tracer<'a>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failure> {
        let Some(key) = self.keys.as_slice().first() else {
            return Ok(None);
        };
        seed.deserialize(StrDeserializer::<Failure>::new(key))
            .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let key = self.keys.next().unwrap_or_default();
        let path = format!("{}.{key}", self.path);
        seed.deserialize(self.tracer.at(path))
    }
}

impl<'de> SeqAccess<'de> for Entries<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Failure> {
        match self.keys.next() {
            Some(_) => seed
                .deserialize(self.tracer.at(self.path.clone()))
                .map(Some),
            None => Ok(None),
        }
    }
}

/// The first variant of an enum.
struct First(&'static str);

impl<'de> EnumAccess<'de> for First {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        let name = seed.deserialize(BorrowedStrDeserializer::<Failure>::new(self.0))?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for First {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Failure> {
        Err(de::Error::custom(
            "no type of a configuration has such a variant",
        ))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Failure> {
        Err(de::Error::custom(
            "no type of a configuration has such a variant",
        ))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Failure> {
        Err(de::Error::custom(
            "no type of a configuration has such a variant",
        ))
    }
}
