//! Repository rules that no compiler checks.

mod repo_checks {
    mod cloud;
    mod codes;
    mod dependencies;
    mod explain;
    mod imports;
    mod lengths;
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
