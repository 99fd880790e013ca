// Loaded into the processes of models before anything else: tells what their threads do, and has them misbehave.
//   NODE_OPTIONS=--import=file:///…/runner-preload.mjs
// What is told goes to standard error, and so to the server's logger. RUNNER_FAULT says what goes wrong.
import { writeSync } from 'node:fs';
import { isMainThread, parentPort } from 'node:worker_threads';

if (!isMainThread) tell(parentPort);
else if (process.send) misbehave(process.env.RUNNER_FAULT);

/** At once, unlike console.error, so that nothing is lost when the process dies. */
function say(text) {
  for (let line = Buffer.from(`${text}\n`); line.length > 0; ) {
    try {
      line = line.subarray(writeSync(2, line));
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error; // the pipe is full, and its reader at work
    }
  }
}

/** "began <request>" when a request reaches the model, and "<end or error> of <request> after <n> pieces" at its end. */
function tell(port) {
  let requestId;
  let pieces = 0;
  port.on('message', (message) => {
    if (message.type !== 'call') return;
    requestId = message.call.requestId;
    pieces = 0;
    say(`began ${requestId}`);
  });
  const post = port.postMessage;
  port.postMessage = (message, transfer) => {
    if (message.type === 'pieces') pieces += message.pieces.length;
    if (message.type === 'end' || message.type === 'error')
      say(`${message.type} of ${requestId} after ${pieces} pieces`);
    post.call(port, message, transfer);
  };
}

function misbehave(fault) {
  const die = () => process.kill(process.pid, 'SIGKILL');
  switch (fault) {
    case 'dies while it loads':
      return process.once('message', () => {
        say('there is no memory left');
        die();
      });
    case 'exits while it loads':
      return process.once('message', () => process.exit(3));
    case 'dies when it is ready':
      return onceSent('ready', die);
    case 'never gets ready':
      return onSend('ready', () => say('never gets ready'));
    case 'talks all the time': {
      const line = '€😀'.repeat(1_000);
      return setInterval(() => {
        for (let i = 0; i < 20; i++) process.stdout.write(line); // without an end of line
        for (let i = 0; i < 20; i++) process.stderr.write(`${line}\n`);
      }, 10);
    }
    case 'closes its channel':
      return process.on('SIGUSR2', () => process.disconnect());
  }
}

/** Does something after the first message of a type was sent. */
function onceSent(type, action) {
  const send = process.send;
  process.send = (message, ...others) => {
    send.call(process, message, ...others);
    if (message.type === type) action();
  };
}

/** Does something in place of sending messages of a type. */
function onSend(type, action) {
  const send = process.send;
  process.send = (message, ...others) => (message.type === type ? action() : send.call(process, message, ...others));
}
