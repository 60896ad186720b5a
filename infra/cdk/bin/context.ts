import { Node } from 'constructs';
import { LogRetentionDays, MaxTaskTimeout, NobatProps } from '../lib/props';

/** Folder with the output of `cargo lambda build`, relative to the folder `cdk`. */
const BUILT = '../../target/lambda';

/** Reads the construct's properties from the context, where everything given on the command line is a string. */
export function fromContext(node: Node): NobatProps {
  const text = (key: keyof NobatProps): string | undefined => node.tryGetContext(key)?.toString();
  return {
    code: text('code') ?? BUILT,
    architecture: oneOf('architecture', text('architecture'), ['arm64', 'x86_64']),
    maxTaskTimeout: number('maxTaskTimeout', text('maxTaskTimeout')) as MaxTaskTimeout | undefined,
    maxConcurrency: number('maxConcurrency', text('maxConcurrency')),
    reserveConcurrency: flag('reserveConcurrency', text('reserveConcurrency')),
    retentionDays: number('retentionDays', text('retentionDays')),
    protectTable: flag('protectTable', text('protectTable')),
    privateNetworks: text('privateNetworks')?.split(','),
    allowFrom: text('allowFrom')?.split(','),
    throttleRate: number('throttleRate', text('throttleRate')),
    throttleBurst: number('throttleBurst', text('throttleBurst')),
    logLevel: text('logLevel'),
    logRetentionDays: number('logRetentionDays', text('logRetentionDays')) as LogRetentionDays | undefined,
    alarmTopic: text('alarmTopic'),
  };
}

function oneOf<T extends string>(key: string, value: string | undefined, allowed: readonly T[]): T | undefined {
  const found = allowed.find((one) => one === value);
  if (value !== undefined && found === undefined) {
    throw new Error(`${key} must be ${allowed.join(' or ')}, not ${value}`);
  }
  return found;
}

function number(key: string, value: string | undefined): number | undefined {
  if (value !== undefined && !/^\d+$/.test(value)) {
    throw new Error(`${key} must be a whole number, not ${value}`);
  }
  return value === undefined ? undefined : Number(value);
}

function flag(key: string, value: string | undefined): boolean | undefined {
  const found = oneOf(key, value, ['true', 'false']);
  return found === undefined ? undefined : found === 'true';
}
