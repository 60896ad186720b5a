// The stack `nobat`. Every property of the construct can be set on the command line: `cdk deploy -c maxConcurrency=50`.
import { App, CfnOutput, CliCredentialsStackSynthesizer, Stack } from 'aws-cdk-lib';
import { Nobat } from '../lib/nobat';
import { fromContext } from './context';

const app = new App();
const stack = new Stack(app, app.node.tryGetContext('stackName') ?? 'nobat', {
  description: 'nobat, an asynchronous task API on Lambda, SQS and DynamoDB',
  // Of what `cdk bootstrap` makes, the bucket alone is used, not the roles: they allow by conditions that emulators do not know.
  synthesizer: new CliCredentialsStackSynthesizer(),
});
const nobat = new Nobat(stack, 'Nobat', fromContext(app.node));

new CfnOutput(stack, 'ApiUrl', { value: nobat.apiUrl, description: 'Where tasks are posted, at /v1/tasks' });
new CfnOutput(stack, 'QueueUrl', { value: nobat.queue.queueUrl, description: 'The queue of hints' });
new CfnOutput(stack, 'DeadLetterQueueUrl', {
  value: nobat.deadLetterQueue.queueUrl,
  description: 'Where hints go that were received ten times in vain',
});
new CfnOutput(stack, 'TableName', { value: nobat.table.tableName, description: 'The table of tasks' });
