// The stack `nobat`. Every property of the construct can be set on the command line: `cdk deploy -c maxConcurrency=50`.
import { App, CfnOutput, CliCredentialsStackSynthesizer, Stack } from 'aws-cdk-lib';
import { Nobat } from '../lib/nobat';
import { fromContext } from './context';

const app = new App();
const stack = new Stack(app, app.node.tryGetContext('stackName') ?? 'nobat', {
  description: 'nobat, an asynchronous task API on Lambda, SQS and DynamoDB',
  // Uses only the bucket of `cdk bootstrap`. The conditions in its roles are not supported by emulators.
  synthesizer: new CliCredentialsStackSynthesizer(),
});
const nobat = new Nobat(stack, 'Nobat', fromContext(app.node));

new CfnOutput(stack, 'ApiUrl', { value: nobat.apiUrl, description: 'Base URL of the API. Clients post tasks to /v1/tasks' });
new CfnOutput(stack, 'QueueUrl', { value: nobat.queue.queueUrl, description: 'The queue of hints' });
new CfnOutput(stack, 'DeadLetterQueueUrl', {
  value: nobat.deadLetterQueue.queueUrl,
  description: 'The queue of hints that were received ten times without success',
});
new CfnOutput(stack, 'TableName', { value: nobat.table.tableName, description: 'The table of tasks' });
