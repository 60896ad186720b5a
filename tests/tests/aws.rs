//! End-to-end tests of nobat on AWS, on stacks that are deployed as users do it, once by SAM and once by CDK. IAM is enforced, so the
//! functions may do only what their roles allow.

/// Makes a test of every function for each source of a stack.
macro_rules! on_each_deployment {
    ($($test:ident),* $(,)?) => {
        mod sam {
            $(#[tokio::test]
            async fn $test() {
                let stack = nobat_tests::aws::stack::Stack::of(nobat_tests::aws::deployment::Source::Sam).await;
                super::$test(&stack).await;
            })*
        }
        mod cdk {
            $(#[tokio::test]
            async fn $test() {
                let stack = nobat_tests::aws::stack::Stack::of(nobat_tests::aws::deployment::Source::Cdk).await;
                super::$test(&stack).await;
            })*
        }
    };
}

mod aws {
    mod callback_secret;
    mod dead_letter;
    mod delay;
    mod endpoint;
    mod failure;
    mod hint;
    mod keys;
    mod outage;
    mod sam_build;
    mod success;
}
