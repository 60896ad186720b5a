import { Duration, RemovalPolicy, aws_dynamodb as dynamodb, aws_kms as kms, aws_sqs as sqs } from 'aws-cdk-lib';
import { Construct } from 'constructs';
import { Settings } from './props';

const { STRING, NUMBER } = dynamodb.AttributeType;

/** The table of tasks, the queues of hints, and the key for secrets. */
export interface Store {
  readonly table: dynamodb.Table;
  readonly secretsKey: kms.Key;
  readonly queue: sqs.Queue;
  readonly deadLetterQueue: sqs.Queue;
}

/** Creates the table, the key, and the two queues. */
export function store(scope: Construct, chosen: Settings): Store {
  const deadLetterQueue = new sqs.Queue(scope, 'DeadLetterQueue', {
    // Six times the timeout of the dead_letter function.
    visibilityTimeout: Duration.seconds(360),
    retentionPeriod: Duration.days(14),
    encryption: sqs.QueueEncryption.SQS_MANAGED,
  });
  const queue = new sqs.Queue(scope, 'Queue', {
    visibilityTimeout: Duration.seconds(chosen.timeouts.visibility),
    retentionPeriod: Duration.days(4),
    encryption: sqs.QueueEncryption.SQS_MANAGED,
    deadLetterQueue: { queue: deadLetterQueue, maxReceiveCount: 10 },
  });
  const secretsKey = new kms.Key(scope, 'SecretsKey', {
    description: 'Encrypts the master key that encrypts the secrets of nobat',
    enableKeyRotation: true,
    // The table outlives the stack, and without the key its secrets are lost.
    removalPolicy: RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
  });
  return { table: table(scope, chosen), secretsKey, queue, deadLetterQueue };
}

function table(scope: Construct, chosen: Settings): dynamodb.Table {
  const made = new dynamodb.Table(scope, 'Table', {
    billingMode: dynamodb.BillingMode.PAY_PER_REQUEST,
    partitionKey: { name: 'PK', type: STRING },
    sortKey: { name: 'SK', type: STRING },
    timeToLiveAttribute: 'expires_at',
    pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
    encryption: dynamodb.TableEncryption.AWS_MANAGED,
    deletionProtection: chosen.protectTable,
    // The table outlives the stack. If the first deployment fails, it is deleted.
    removalPolicy: RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE,
  });
  made.addGlobalSecondaryIndex({
    indexName: 'sweep',
    partitionKey: { name: 'sweep', type: STRING },
    sortKey: { name: 'sweep_at', type: NUMBER },
    projectionType: dynamodb.ProjectionType.KEYS_ONLY,
  });
  made.addGlobalSecondaryIndex({
    indexName: 'recent',
    partitionKey: { name: 'recent', type: STRING },
    sortKey: { name: 'place', type: STRING },
    projectionType: dynamodb.ProjectionType.KEYS_ONLY,
  });
  return made;
}
