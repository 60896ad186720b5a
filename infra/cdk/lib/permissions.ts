import { Functions } from './functions';
import { Store } from './store';

/** Actions on resources. */
export interface Permission {
  readonly actions: string[];
  readonly resources: string[];
  readonly conditions?: { [operator: string]: { [key: string]: string[] } };
}

/** Permissions of each function, besides writing its log. */
export function permissions({ table, secretsKey, queue, deadLetterQueue }: Store): { [name in keyof Functions]: Permission[] } {
  const onTable = (...actions: string[]) => on(table.tableArn, 'dynamodb', actions);
  const onIndex = (index: string) => on(`${table.tableArn}/index/${index}`, 'dynamodb', ['Query']);
  const onKey = (...actions: string[]) => on(secretsKey.keyArn, 'kms', actions);
  const onQueue = (...actions: string[]) => on(queue.queueArn, 'sqs', actions);
  return {
    api: [
      onTable('BatchGetItem', 'GetItem', 'PutItem', 'Query', 'UpdateItem'),
      // Deletes only configuration of tenants, in the partitions C#TENANT.
      { ...onTable('DeleteItem'), conditions: { 'ForAllValues:StringLike': { 'dynamodb:LeadingKeys': ['C#?*'] } } },
      onIndex('recent'),
      onIndex('sweep'),
      onQueue('GetQueueAttributes', 'SendMessage'),
      onKey('Decrypt', 'GenerateDataKeyWithoutPlaintext'),
    ],
    worker: [
      // Queries the subscriptions of a tenant.
      onTable('GetItem', 'PutItem', 'Query', 'UpdateItem'),
      onQueue('DeleteMessage', 'GetQueueAttributes', 'ReceiveMessage', 'SendMessage'),
      onKey('Decrypt'),
    ],
    deadLetter: [
      onTable('GetItem', 'PutItem', 'UpdateItem'),
      onQueue('SendMessage'),
      on(deadLetterQueue.queueArn, 'sqs', ['DeleteMessage', 'GetQueueAttributes', 'ReceiveMessage']),
    ],
    sweeper: [
      onTable('BatchGetItem', 'GetItem', 'PutItem', 'UpdateItem'),
      onIndex('sweep'),
      onQueue('SendMessage'),
    ],
  };
}

function on(resource: string, service: string, actions: string[]): Permission {
  return { actions: actions.map((action) => `${service}:${action}`), resources: [resource] };
}
