// Preload (node --import) for published servers that bind every address: keeps them on loopback and
// announces the port that was really taken, as our own servers do.
import net from 'node:net';

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  const callback = rest.find(argument => typeof argument === 'function');
  this.once('listening', () => console.log('ready', this.address().port));
  return listen.call(this, { port: Number(port), host: '127.0.0.1' }, callback);
};
process.stdin.resume().on('end', () => process.exit(0)); // the test that started us is gone
