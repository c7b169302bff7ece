// A publisher and a subscriber with MQTT.js, over restarts of the broker. It tells mqtt_js.py what happens, a line of
// JSON each, and ends by itself when everything has been acknowledged and has come.
//
//   node mqtt_js.cjs PORT VERSION COUNT STEP QOS
//
// It prints {"reached": n} whenever STEP more were acknowledged, and at the end {"done": {...}}.
'use strict';
const mqtt = require('mqtt');

const [port, version, count, step, qos] = process.argv.slice(2).map(Number);
const url = `mqtt://127.0.0.1:${port}`;
const say = (what) => console.log(JSON.stringify(what));
const options = (clientId) => ({
  clientId,
  clean: false,
  protocolVersion: version,
  reconnectPeriod: 100,
  properties: version === 5 ? { sessionExpiryInterval: 3600 } : undefined,
});

const arrivals = [];
const acknowledged = [];
const sessionPresent = [];
const WINDOW = 50;
let published = 0;
let reported = 0;

const reader = mqtt.connect(url, options('js-reader'));
const writer = mqtt.connect(url, options('js-writer'));
for (const client of [reader, writer]) {
  // A broker that is ended breaks links and refuses new ones; that is what happens here.
  client.on('error', (error) => error.syscall || say({ error: String(error) }));
}

reader.on('connect', (connack) => sessionPresent.push(connack.sessionPresent));
reader.on('message', (_topic, payload) => {
  arrivals.push(Number(payload));
  endIfAll();
});
// MQTT.js subscribes again by itself only where the session is gone.
reader.subscribe('js/+', { qos }, (error, granted) => {
  if (error || granted[0].qos !== qos) say({ error: `subscribe: ${error} ${JSON.stringify(granted)}` });
  for (let n = 0; n < WINDOW; n++) publishNext();
});

function publishNext() {
  if (published === count) return;
  const number = published++;
  writer.publish('js/n', String(number), { qos }, (error) => {
    if (error) say({ error: `publish ${number}: ${error}` });
    else acknowledged.push(number);
    if (acknowledged.length >= reported + step) {
      reported += step;
      say({ reached: reported });
    }
    setTimeout(publishNext, 1);
    endIfAll();
  });
}

let ending = false;
function endIfAll() {
  if (ending || acknowledged.length < count || new Set(arrivals).size < count) return;
  ending = true;
  say({ done: { acknowledged, arrivals, sessionPresent } });
  reader.end();
  writer.end();
}

// What is missing is told by the report, not by a test that hangs.
setTimeout(() => {
  if (ending) return;
  say({ done: { acknowledged, arrivals, sessionPresent } });
  process.exit(1);
}, 45_000).unref();
