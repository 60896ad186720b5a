//! Repository rules that no compiler checks.

mod house {
    mod cloud;
    mod codes;
    mod dependencies;
    mod explain;
    mod paths;
    mod picture;
    mod proofs;
    mod schemas;
    mod settings;
    mod source;
    mod supply;
    mod urls;
    mod words;
}
