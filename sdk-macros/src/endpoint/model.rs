//! What an endpoint means: the options with their values, checked against each other and against the function.

use std::collections::BTreeSet;

use router_common::endpoint::PathTemplate;
use syn::{
    Attribute, Expr, ExprLit, FnArg, GenericArgument, GenericParam, Lit, LitStr, Meta, PathArguments, ReceiverKind,
    Signature, Type,
};

use super::parse::Arguments;
use crate::sink::Sink;
use crate::value::{Value, Written, listed, nearest};

/// Most parameters of a handler: the arity to which the SDK implements `Handler`.
const PARAMETERS: usize = 12;

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const OPTIONS: &[&str] = &[
    "timeout",
    "idempotent",
    "streaming",
    "one_way",
    "detached",
    "blocking",
    "claims",
    "max_request_bytes",
    "summary",
    "tags",
    "deprecated",
];

/// Names that would shadow a primitive type: the description lives beside the function, where types are named.
const PRIMITIVES: &[&str] = &[
    "bool", "char", "str", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize",
    "f32", "f64",
];

pub(crate) struct Model {
    pub(crate) method: String,
    pub(crate) path: LitStr,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) idempotent: bool,
    pub(crate) streaming_request: bool,
    pub(crate) streaming_response: bool,
    pub(crate) one_way: bool,
    pub(crate) detached: bool,
    pub(crate) blocking: bool,
    pub(crate) deprecated: bool,
    pub(crate) claims: Vec<(String, Vec<LitStr>)>,
    pub(crate) max_request_bytes: Option<u64>,
    pub(crate) summary: Option<String>,
    pub(crate) tags: Vec<LitStr>,
}

impl Model {
    pub(crate) fn read(arguments: Arguments, attributes: &[Attribute], signature: &Signature, sink: &mut Sink) -> Self {
        let Arguments { method, path, options } = arguments;
        let name = method.to_string();
        if !METHODS.contains(&name.as_str()) {
            let help = match nearest(&name, METHODS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the methods are {}", listed(METHODS)),
            };
            sink.error_with_help(&method, format_args!("unknown method `{name}`"), help);
        }
        match path.value().parse::<PathTemplate>() {
            Ok(template) => check_path_parameters(&template, signature, sink),
            Err(error) => sink.error_with_help(
                &path,
                format_args!("bad path template: {error}"),
                "`/orders/{id}` has a parameter, `/files/{*path}` takes all the rest",
            ),
        }
        let mut model = Self {
            method: name,
            path,
            timeout_ms: None,
            idempotent: false,
            streaming_request: false,
            streaming_response: false,
            one_way: false,
            detached: false,
            blocking: false,
            deprecated: false,
            claims: Vec::new(),
            max_request_bytes: None,
            summary: None,
            tags: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for option in &options {
            let name = option.name.to_string();
            if !OPTIONS.contains(&name.as_str()) {
                let help = match nearest(&name, OPTIONS) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the options are {}", listed(OPTIONS)),
                };
                sink.error_with_help(&option.name, format_args!("unknown option `{name}`"), help);
            } else if !seen.insert(name.clone()) {
                sink.error(option, format_args!("the option `{name}` stands twice"));
            } else if let Err(error) = model.set(&name, option) {
                sink.push(error);
            }
        }
        if model.one_way && model.streaming_response {
            sink.error_with_help(
                options.iter().find(|option| option.name == "one_way").map(|option| &option.name),
                "a `one_way` endpoint answers 202 before its handler runs, so it has no response to stream",
                "write `streaming(request)`, or leave `one_way` out",
            );
        }
        if model.summary.is_none() {
            model.summary = first_doc_line(attributes);
        }
        model
    }

    fn set(&mut self, name: &str, option: &Written) -> syn::Result<()> {
        match name {
            "timeout" => self.timeout_ms = Some(option.milliseconds()?),
            "idempotent" => self.idempotent = option.flag()?,
            "one_way" => self.one_way = option.flag()?,
            "detached" => self.detached = option.flag()?,
            "blocking" => self.blocking = option.flag()?,
            "deprecated" => self.deprecated = option.flag()?,
            "max_request_bytes" => self.max_request_bytes = Some(option.bytes()?),
            "summary" => self.summary = Some(option.string("What it does")?.value()),
            "tags" => self.tags = option.strings("orders")?,
            "streaming" => (self.streaming_request, self.streaming_response) = streaming(option)?,
            "claims" => self.claims = claims(option)?,
            _ => {}
        }
        Ok(())
    }
}

fn streaming(option: &Written) -> syn::Result<(bool, bool)> {
    const HELP: &str = "help: `streaming` (both directions), `streaming(request)`, `streaming(response)` or `streaming(request, response)`";
    let list = match &option.value {
        Value::Flag => return Ok((true, true)),
        Value::List(list) if !list.is_empty() => list,
        _ => return Err(syn::Error::new_spanned(option, format!("`streaming` says which direction flows\n\n{HELP}"))),
    };
    let (mut request, mut response) = (false, false);
    for direction in list {
        let flag = match direction.name.to_string().as_str() {
            "request" => &mut request,
            "response" => &mut response,
            other => {
                return Err(syn::Error::new_spanned(direction, format!("unknown direction `{other}`\n\n{HELP}")));
            }
        };
        if std::mem::replace(flag, direction.flag()?) {
            return Err(syn::Error::new_spanned(direction, format!("the direction `{}` stands twice", direction.name)));
        }
    }
    Ok((request, response))
}

fn claims(option: &Written) -> syn::Result<Vec<(String, Vec<LitStr>)>> {
    const HELP: &str = "help: `claims(scope = \"orders:read\", role = [\"admin\", \"clerk\"], tenant)`: all must hold, a list means one of, a bare name any value";
    let Value::List(list) = &option.value else {
        return Err(syn::Error::new_spanned(option, format!("`claims` takes a list\n\n{HELP}")));
    };
    if list.is_empty() {
        return Err(syn::Error::new_spanned(option, format!("`claims` requires nothing\n\n{HELP}")));
    }
    list.iter()
        .map(|claim| {
            let kind = claim.name.to_string();
            let any_of = match &claim.value {
                Value::Flag => Vec::new(),
                Value::Array(values) if values.is_empty() => {
                    return Err(syn::Error::new_spanned(
                        claim,
                        format!("no value would do for `{kind}`\n\nhelp: write `{kind}` alone if any value will do"),
                    ));
                }
                Value::List(_) => {
                    return Err(syn::Error::new_spanned(claim, format!("`{kind}` takes a value or a list\n\n{HELP}")));
                }
                Value::Literal(_) | Value::Array(_) => claim.strings("value")?,
            };
            Ok((kind, any_of))
        })
        .collect()
}

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Function,
    /// In an impl block with `#[service]`.
    Method,
}

/// What a handler must be, whatever its endpoint says.
pub(crate) fn check_function(signature: &Signature, place: Place, sink: &mut Sink) {
    if signature.asyncness.is_none() {
        sink.error_with_help(
            signature.fn_token,
            "an endpoint is an `async` function",
            format_args!("write `async fn {}`", signature.ident),
        );
    }
    let generic = signature.generics.params.iter().find(|parameter| !matches!(parameter, GenericParam::Lifetime(_)));
    if let Some(generic) = generic {
        sink.error_with_help(
            generic,
            "an endpoint cannot be generic: its types are what is read from the request",
            "call a generic function from it",
        );
    }
    if let Some(clause) = &signature.generics.where_clause {
        sink.error(clause, "an endpoint has no `where` clause");
    }
    for input in &signature.inputs {
        match input {
            FnArg::Receiver(receiver) if place == Place::Function => sink.error_with_help(
                receiver,
                "an endpoint function has no `self`",
                "put `#[service]` on the impl block, or take what it needs by `State(..)`",
            ),
            FnArg::Receiver(receiver) => {
                if !matches!(receiver.kind, ReceiverKind::Reference(_, _, None)) {
                    sink.error(
                        receiver,
                        "an endpoint of a service takes `&self`: requests are served at the same time",
                    );
                }
            }
            FnArg::Typed(argument) => {
                if let Type::ImplTrait(argument) = &*argument.ty {
                    sink.error(argument, "an endpoint cannot be generic: name the extractor's type");
                }
            }
        }
    }
    let beyond = signature.inputs.iter().filter(|input| matches!(input, FnArg::Typed(_))).nth(PARAMETERS);
    if let Some(beyond) = beyond {
        sink.error_with_help(
            beyond,
            format_args!("an endpoint has at most {PARAMETERS} parameters"),
            "put several extractors into one type that implements `FromRequestParts`",
        );
    }
    if place == Place::Method && signature.receiver().is_none() {
        sink.error_with_help(
            &signature.ident,
            "an endpoint of a service takes `&self`",
            "move the function out of the impl block",
        );
    }
    let name = signature.ident.to_string();
    if place == Place::Function && PRIMITIVES.contains(&name.as_str()) {
        sink.error(&signature.ident, format_args!("an endpoint cannot be named like the primitive type `{name}`"));
    }
}

/// Compares `Path<..>` with the template where the type tells how many parameters it takes.
fn check_path_parameters(template: &PathTemplate, signature: &Signature, sink: &mut Sink) {
    let names: Vec<&str> = template.parameters().collect();
    for input in &signature.inputs {
        let FnArg::Typed(argument) = input else { continue };
        let Some(taken) = path_type(&argument.ty) else { continue };
        if names.is_empty() {
            sink.error_with_help(
                &argument.ty,
                format_args!("the path `{template}` has no parameters"),
                "add one, as in `/orders/{id}`, or leave `Path` out",
            );
            continue;
        }
        let count = match taken {
            Type::Tuple(tuple) => tuple.elems.len(),
            single if is_single_value(single) => 1,
            _ => continue,
        };
        if count != names.len() {
            let listed = listed(&names);
            let help = if names.len() == 1 {
                "write `Path(id): Path<u64>`".to_owned()
            } else {
                format!("take {} values in a tuple, or a struct with these fields", names.len())
            };
            sink.error_with_help(
                taken,
                format_args!("`{template}` has {} ({listed}), but {count} taken here", plural(names.len())),
                help,
            );
        }
    }
}

fn plural(count: usize) -> String {
    if count == 1 { "1 parameter".to_owned() } else { format!("{count} parameters") }
}

/// `T` of a type that is written `Path<T>`, however it is qualified.
fn path_type(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(inner) if last.ident == "Path" && arguments.args.len() == 1 => Some(inner),
        _ => None,
    }
}

fn is_single_value(ty: &Type) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|last| {
        let name = last.ident.to_string();
        last.arguments.is_none() && (PRIMITIVES.contains(&name.as_str()) || name == "String")
    })
}

fn first_doc_line(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let Meta::NameValue(pair) = &attribute.meta else { return None };
        if !pair.path.is_ident("doc") {
            return None;
        }
        let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = &pair.value else { return None };
        let text = text.value();
        text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
    })
}
