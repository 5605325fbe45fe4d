// Dreams that a server computes: commands go as JSON, pictures come as bytes.

/**
 * Connects to the server that this page came from.
 * @param {{hello, picture, refused, closed}} listener What to call with the world's facts, with each picture, with the
 *   reason why a command wasn't followed, and with the reason why there are no more.
 * @returns {{send: function(object)}} Where commands go.
 */
export async function connect(listener) {
  const address = new URL("dream", document.baseURI);
  address.protocol = "ws:";
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  let facts = null;
  socket.onmessage = ({ data }) => {
    if (typeof data !== "string") {
      listener.picture(readPicture(data, facts));
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "hello") {
      facts = message;
      listener.hello(facts);
    } else if (message.type === "refused") {
      listener.refused(message.message);
    }
  };
  socket.onclose = ({ reason }) => {
    listener.closed(reason || "The dream is over: rnem-world play has ended, or the connection is lost.");
  };
  return {
    send(command) {
      if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(command));
    },
  };
}

/** Reads a binary message: the header's length, the header, and each lane's frame; of dreams also who owns what. */
function readPicture(data, facts) {
  const length = new DataView(data).getUint32(0, true);
  const picture = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const [height, width, channels] = facts.frame;
  let offset = 4 + length;
  const take = (size) => {
    const bytes = new Uint8Array(data, offset, size);
    offset += size;
    return bytes;
  };
  for (const lane of picture.lanes) {
    lane.frame = take(height * width * channels);
    if (lane.slots) {
      lane.owner = take(height * width);
      lane.share = take(height * width);
    }
  }
  return picture;
}
