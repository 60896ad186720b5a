//! End-to-end tests of nobat on AWS, on stacks that are deployed as users do it, once by SAM and once by CDK.
//! IAM is enforced, so the functions may do only what their roles allow.

/// Makes a test of every function for each source of a stack.
///
/// The tests of one stack wait for each other. Their names end with the source, so that two test threads,
/// which take tests by name, work on different stacks.
macro_rules! on_each_deployment {
    ($($test:ident),* $(,)?) => {
        $(mod $test {
            use nobat_tests::aws::deployment::Source;
            use nobat_tests::aws::stack::Stack;

            #[tokio::test]
            async fn cdk() {
                super::$test(&*Stack::of(Source::Cdk).await).await;
            }

            #[tokio::test]
            async fn sam() {
                super::$test(&*Stack::of(Source::Sam).await).await;
            }
        })*
    };
}

mod aws {
    mod callback_secret;
    mod dead_letter;
    mod delay;
    mod endpoint;
    mod events;
    mod failure;
    mod hint;
    mod keys;
    mod outage;
    mod sam_build;
    mod schedules;
    mod sources;
    mod success;
    mod waits;
}
