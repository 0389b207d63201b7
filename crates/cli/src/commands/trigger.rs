//! `stepwes trigger`: which objects that land start which run.

mod place;

use std::{path::Path, process::ExitCode};

use anyhow::Context as _;
use serde_json::{Value, json};
use stepwes_core::{
    keys,
    trigger::{Match, Trigger, attachments_prefix, name_of_file},
};

use crate::{
    args::{
        TriggerAddArgs, TriggerArgs, TriggerCommand, TriggerListArgs, TriggerRemoveArgs,
        TriggerTestArgs,
    },
    ui::{hint, print, print_json, say, table},
};
use place::Place;

/// Adds, lists, removes or tries triggers.
pub(crate) async fn trigger(args: TriggerArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        TriggerCommand::Add(args) => add(args).await,
        TriggerCommand::List(args) => list(args).await,
        TriggerCommand::Remove(args) => remove(args).await,
        TriggerCommand::Test(args) => test(args).await,
    }
}

/// A trigger's file on this machine, as `file` in the service.
fn read(path: &Path, name: Option<&str>) -> anyhow::Result<(String, Vec<u8>, Trigger)> {
    let content =
        std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let given = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let file = match (name, given.rsplit_once('.')) {
        (Some(name), Some((_, extension))) => format!("{name}.{extension}"),
        _ => given.to_owned(),
    };
    let trigger = Trigger::parse(&file, &content).map_err(|error| {
        hint(
            format!("{} is no trigger: {error}", path.display()),
            "docs/events.md says what a trigger is made of",
        )
    })?;
    Ok((file, content, trigger))
}

/// The trigger's own files, as far as the service has them under `name`.
async fn files_of(place: &Place, name: &str) -> anyhow::Result<Vec<String>> {
    let keys = place.list(keys::TRIGGERS).await?;
    let is_its = |key: &String| {
        let file = key.strip_prefix(keys::TRIGGERS).unwrap_or_default();
        !file.contains('/') && name_of_file(file) == Some(name)
    };
    Ok(keys.into_iter().filter(is_its).collect())
}

/// Checks a trigger, and puts it with its attachments where the service reads it: the trigger last,
/// since it counts from then on.
async fn add(args: TriggerAddArgs) -> anyhow::Result<ExitCode> {
    let (file, content, trigger) = read(&args.file, args.name.as_deref())?;
    let place = Place::open(&args.place).await?;
    place.check(&trigger)?;
    let before = files_of(&place, &trigger.name).await?;
    if !before.is_empty() && !args.replace {
        return Err(hint(
            format!("there is a trigger {} in {place} already", trigger.name),
            "add --replace to put this one in its place, or give it another --name",
        ));
    }
    let folder = args.file.parent().unwrap_or(Path::new(""));
    let prefix = attachments_prefix(&trigger.name);
    let mut attached = Vec::new();
    for name in trigger.attachments()? {
        let path = folder.join(name.as_str());
        let content = std::fs::read(&path).with_context(|| {
            format!("{}, which the trigger attaches, cannot be read", path.display())
        })?;
        attached.push((format!("{prefix}{name}"), content));
    }
    for (key, content) in &attached {
        place.put(key, content.clone()).await?;
    }
    let key = format!("{}{file}", keys::TRIGGERS);
    place.put(&key, content).await?;
    // What an older trigger of the name has left.
    for key in before.iter().filter(|before| **before != key) {
        place.delete(key).await?;
    }
    for old in place.list(&prefix).await? {
        if !attached.iter().any(|(key, _)| *key == old) {
            place.delete(&old).await?;
        }
    }
    if args.place.json {
        let mut shown = described(&trigger);
        shown["file"] = key.into();
        print_json(&shown)?;
    } else {
        print(&format!("{} is in {place}\n", trigger.name))?;
        say(&format!(
            "should the service refuse it, {} says why",
            place.shown(&keys::rejected(&key))
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// A trigger as `--json` shows it.
fn described(trigger: &Trigger) -> Value {
    let mut patterns: Vec<_> = trigger.patterns().collect();
    let (_, key) = patterns.remove(0);
    json!({
        "name": trigger.name,
        "description": trigger.description,
        "bucket": trigger.bucket,
        "key": key,
        "wait_for": patterns.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "owner": trigger.owner,
    })
}

/// Every trigger's file, read: its key, and the trigger or what is wrong with it.
async fn triggers(place: &Place) -> anyhow::Result<Vec<(String, Result<Trigger, String>)>> {
    let mut found = Vec::new();
    for key in place.list(keys::TRIGGERS).await? {
        let file = key.strip_prefix(keys::TRIGGERS).unwrap_or_default();
        if file.is_empty() || file.contains('/') {
            continue;
        }
        // Removed since the listing.
        let Some(content) = place.get(&key).await? else { continue };
        let trigger = Trigger::parse(file, &content)
            .and_then(|trigger| place.check_own(&trigger).map(|()| trigger))
            .map_err(|error| error.to_string());
        found.push((key, trigger));
    }
    Ok(found)
}

/// Lists the triggers.
async fn list(args: TriggerListArgs) -> anyhow::Result<ExitCode> {
    let place = Place::open(&args.place).await?;
    let found = triggers(&place).await?;
    if args.place.json {
        let shown: Vec<_> = found
            .iter()
            .map(|(key, trigger)| match trigger {
                Ok(trigger) => {
                    let mut shown = described(trigger);
                    shown["file"] = key.as_str().into();
                    shown
                }
                Err(error) => json!({"file": key, "error": error}),
            })
            .collect();
        print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = Vec::new();
    for (key, trigger) in &found {
        match trigger {
            Ok(trigger) => {
                let patterns: Vec<_> = trigger.patterns().map(|(_, pattern)| pattern).collect();
                rows.push(vec![
                    trigger.name.clone(),
                    trigger.bucket.clone(),
                    patterns.join(" "),
                    trigger.owner.clone().unwrap_or_default(),
                    trigger.description.clone().unwrap_or_default(),
                ]);
            }
            Err(error) => say(&format!("{key} starts nothing: {error}")),
        }
    }
    print(&table(&["NAME", "BUCKET", "KEYS", "OWNER", "DESCRIPTION"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

/// Removes a trigger, then what it attached.
async fn remove(args: TriggerRemoveArgs) -> anyhow::Result<ExitCode> {
    let place = Place::open(&args.place).await?;
    let files = files_of(&place, &args.name).await?;
    if files.is_empty() {
        return Err(hint(
            format!("there is no trigger {} in {place}", args.name),
            "`stepwes trigger list` shows those that there are",
        ));
    }
    for key in files {
        place.delete(&key).await?;
    }
    for key in place.list(&attachments_prefix(&args.name)).await? {
        place.delete(&key).await?;
    }
    if args.place.json {
        print_json(&json!({"removed": args.name}))?;
    } else {
        print(&format!("{} starts nothing any more\n", args.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The bucket and key of an object: `s3://BUCKET/KEY`, or a key of the runs bucket.
fn object<'a>(place: &'a Place, text: &'a str) -> anyhow::Result<(&'a str, &'a str)> {
    let Some(rest) = text.strip_prefix("s3://") else { return Ok((place.runs_bucket(), text)) };
    rest.split_once('/')
        .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
        .ok_or_else(|| hint(format!("{text} is no object"), "name it as s3://BUCKET/KEY"))
}

/// Shows what an object would start, without starting anything; fails when nothing.
async fn test(args: TriggerTestArgs) -> anyhow::Result<ExitCode> {
    let place = Place::open(&args.place).await?;
    let (bucket, key) = object(&place, &args.object)?;
    let triggers = match &args.file {
        Some(path) => {
            let (_, _, trigger) = read(path, None)?;
            place.check(&trigger)?;
            vec![(path.display().to_string(), Ok(trigger))]
        }
        None => triggers(&place).await?,
    };
    let (mut matched, mut bad) = (Vec::new(), Vec::new());
    for (file, trigger) in triggers {
        match trigger {
            Ok(trigger) => {
                for set in trigger.matches(bucket, key) {
                    matched.push(tried(&place, &trigger, &set, key).await?);
                }
            }
            Err(error) => bad.push(json!({"file": file, "error": error})),
        }
    }
    let some = !matched.is_empty();
    if args.place.json {
        let object = format!("s3://{bucket}/{key}");
        print_json(&json!({"object": object, "triggers": matched, "bad": bad}))?;
    } else {
        for trigger in &bad {
            say(&format!("{} starts nothing: {}", text(&trigger["file"]), text(&trigger["error"])));
        }
        for trigger in &matched {
            print(&told(trigger)?)?;
        }
        if !some {
            say(&format!("no trigger waits for s3://{bucket}/{key}"));
        }
    }
    Ok(if some { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What one set of objects would come to, were `key` there.
async fn tried(place: &Place, trigger: &Trigger, set: &Match, key: &str) -> anyhow::Result<Value> {
    let mut objects = Vec::new();
    let mut missing = Vec::new();
    for object in &set.objects {
        let is_there = object.key == key || place.has(&trigger.bucket, &object.key).await?;
        if !is_there {
            missing.push(object.key.clone());
        }
        objects.push(json!({"name": object.name, "key": object.key, "there": is_there}));
    }
    let mut shown = json!({
        "trigger": trigger.name, "owner": trigger.owner, "parts": set.parts, "objects": objects,
        "waits_for": missing,
    });
    match trigger.request(set).and_then(|_| trigger.rendered(set)) {
        Ok(request) => shown["request"] = request.into(),
        Err(error) => shown["error"] = error.to_string().into(),
    }
    Ok(shown)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The same for people.
fn told(tried: &Value) -> anyhow::Result<String> {
    let mut lines = vec![text(&tried["trigger"]).to_owned()];
    for (name, value) in tried["parts"].as_object().into_iter().flatten() {
        lines.push(format!("  {name} = {}", text(value)));
    }
    for object in tried["objects"].as_array().into_iter().flatten() {
        let there = if object["there"] == true { "there  " } else { "missing" };
        lines.push(format!("  {there}  {} ({})", text(&object["key"]), text(&object["name"])));
    }
    if tried["waits_for"].as_array().is_some_and(|missing| !missing.is_empty()) {
        lines.push("  it waits for what is missing; then it submits".to_owned());
    } else {
        lines.push("  it submits".to_owned());
    }
    match &tried["request"] {
        Value::Null => lines.push(format!("  nothing: {}", text(&tried["error"]))),
        request => lines.push(serde_json::to_string_pretty(request)?),
    }
    Ok(format!("{}\n", lines.join("\n")))
}
