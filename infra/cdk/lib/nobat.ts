import { Aws, aws_dynamodb as dynamodb, aws_kms as kms, aws_lambda as lambda, aws_sqs as sqs } from 'aws-cdk-lib';
import { Construct } from 'constructs';
import { alarms } from './alarms';
import { httpApi } from './http-api';
import { Functions, functions } from './functions';
import { NobatProps, settings } from './props';
import { schedule } from './schedule';
import { sources } from './sources';
import { Store, store } from './store';

export { LogRetentionDays, MaxTaskTimeout, NobatProps } from './props';

/**
 * An asynchronous task API: HTTP API, four functions, a queue with its dead-letter queue, a table, a key for secrets, a schedule and alarms.
 *
 * The SAM template (../../template.yaml) defines the same resources, and its comments give the reasons. ../../compare.py checks that both agree.
 * For this check, every construct is a direct child of this one and has the name of its resource in the template.
 */
export class Nobat extends Construct {
  /** The table of tasks. */
  readonly table: dynamodb.Table;
  /** KMS key that encrypts the master key of secrets. */
  readonly secretsKey: kms.Key;
  /** The queue of hints. */
  readonly queue: sqs.Queue;
  /** The queue of hints that were received ten times without success. */
  readonly deadLetterQueue: sqs.Queue;
  /** Base URL of the API. Tasks are posted to `/v1/tasks`. */
  readonly apiUrl: string;
  /** The functions, to add permissions or variables for custom handlers. */
  readonly functions: { readonly [name in keyof Functions]: lambda.Function };

  constructor(scope: Construct, id: string, props: NobatProps) {
    super(scope, id);
    const chosen = settings(props, Aws.STACK_NAME);
    const kept: Store = store(this, chosen);
    this.table = kept.table;
    this.secretsKey = kept.secretsKey;
    this.queue = kept.queue;
    this.deadLetterQueue = kept.deadLetterQueue;
    this.functions = functions(this, chosen, kept);
    this.apiUrl = httpApi(this, chosen, this.functions.api);
    sources(this, chosen, kept, this.functions);
    schedule(this, this.functions.sweeper);
    alarms(this, chosen, kept, this.functions);
  }
}
